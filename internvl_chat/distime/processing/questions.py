"""What is asked, word for word: published numbers depend on every character.

Nothing here needs a tokenizer, so that `distime evaluate --help` imports no more than text.
"""

from __future__ import annotations

JOIN = {"train": "\n", "demo": ""}
"""What stands between the frames and the question; each benchmark has its own `join`."""

STEP_CAPTIONING = (
    "Identify and localize a series of steps or actions occurring in the video, providing start "
    "and end timestamps and related descriptions."
)
EVENT_CAPTIONING = (
    "Localize a series of activity events in the video, output the start and end timestamp for "
    "each event, and describe each event with sentences."
)
RETRIEVAL = (
    "Give you {article} textual query: '{query}'. When does the described content occur in the "
    "video? Please return the timestamp in seconds."
)
"""When does something happen? Published questions differ in the article."""
CHOOSE = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail "
    "and movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n\n"
)
"""What stands before a multiple-choice question."""


def moment_retrieval_question(query: str) -> str:
    """When does ``query`` happen?"""
    return RETRIEVAL.format(article="a", query=query.lstrip())
