"""A world small enough to learn on one machine: synthetic videos, lessons, tiny models."""
