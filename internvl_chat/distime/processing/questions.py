"""What the benchmarks ask, word for word: published numbers depend on every character.

Nothing here needs a tokenizer, so that `distime evaluate --help` imports no more than text.
"""

from __future__ import annotations

from collections.abc import Sequence

JOIN = {
    "train": "\n",
    "charades": "",
    "anet": "",
    "qvh": "",
    "youcook2_dvc": "",
    "anet_dvc": "",
    "mvbench": "",
    "demo": "",
    "nextgqa": "\n",
    "longvideobench": "\n",
}
"""What stands between the frames and the question. Published evaluations differ in this."""

YOUCOOK2_CAPTIONING = (
    "Identify and localize a series of steps or actions occurring in the video, providing start "
    "and end timestamps and related descriptions."
)
ANET_CAPTIONING = (
    "Localize a series of activity events in the video, output the start and end timestamp for "
    "each event, and describe each event with sentences."
)
_RETRIEVAL = (
    "Give you {article} textual query: '{query}'. When does the described content occur in the "
    "video? Please return the timestamp in seconds."
)
_CHOOSE = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail "
    "and movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n\n"
)


def moment_retrieval_question(query: str) -> str:
    """Charades-STA, ActivityNet and QVHighlights: when does ``query`` happen?"""
    return _RETRIEVAL.format(article="a", query=query.lstrip())


def nextgqa_time_question(question: str) -> str:
    """NExT-GQA, first stage: when is that which the question asks about?"""
    return _RETRIEVAL.format(article="the", query=question)


def nextgqa_choice_question(question: str, options: Sequence[str]) -> str:
    """NExT-GQA, second stage: options are numbered from (0)."""
    listed = "\n".join(f"({i}) {option}" for i, option in enumerate(options))
    return f"{_CHOOSE}Question1: {question}\nOptions:\n{listed}\nOnly give the best option."


def mvbench_question(question: str, options: Sequence[str]) -> str:
    """MVBench: options are lettered from (A)."""
    listed = "\n".join(f"({_letter(i)}) {option}" for i, option in enumerate(options)).rstrip()
    return f"{_CHOOSE}Question: {question}\nOptions:\n{listed}\nOnly give the best option."


def longvideobench_question(question: str, options: Sequence[str]) -> str:
    """LongVideoBench: options are lettered from A., and the apostrophe is a curly one."""
    listed = "\n".join(f"{_letter(i)}. {option}" for i, option in enumerate(options))
    return (
        f"Question: {question}\nOptions:\n{listed}\n"
        "Answer with the option\N{RIGHT SINGLE QUOTATION MARK}s letter from the given choices "
        "directly."
    )


def _letter(index: int) -> str:
    return chr(ord("A") + index)
