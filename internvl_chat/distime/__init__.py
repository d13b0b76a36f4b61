"""DisTime: distribution-based time representation for video large language models."""
