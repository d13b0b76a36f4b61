"""NExT-GQA: first when the answer can be seen, then which option it is, looking there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from distime.evaluate.benchmark import (
    NO_ANSWER,
    Answered,
    Benchmark,
    Choice,
    Query,
    SettingsError,
    rounded_intervals,
)
from distime.files import write_json
from distime.metrics.choices import Options, read_choice
from distime.processing.answers import Answer, Event
from distime.processing.questions import nextgqa_choice_question, nextgqa_time_question

TIMES, ANSWERS = "result_timestamp.json", "result.json"

_PUBLISHED = re.compile(r"Answer: \((\d+)\)|The answer is \((\d+)\)|Answer is \((\d+)\)|\((\d+)\)")


class NextGQA(Benchmark):
    """Stage 1 asks for times, stage 2 for options, with the frames of stage 1's interval."""

    name = "nextgqa"
    annotation = "nextgqa/test.json"
    ground_truth = "gsub_test.json"
    videos = "nextgqa"
    stages = (1, 2)

    def queries(self) -> Iterator[Query]:
        """One query per entry of `test.json`.

        Raises:
            SettingsError: also when stage 2 finds no times of stage 1.
        """
        if self.settings.stage == 2 and not self.times_path.is_file():
            raise SettingsError(
                f"--timestamps {self.times_path}: no such file; run stage 1 with the same "
                "--out-dir first"
            )
        try:
            for item in self.read_annotation():
                qid, video, asked = item["qid"], item["video"], item["question"]
                if self.settings.stage == 1:
                    yield Query(
                        qid,
                        video,
                        nextgqa_time_question(item["question"]),
                        item,
                        title=item["question"],
                    )
                else:
                    options = [item[f"a{i}"] for i in range(item["num_option"])]
                    question = nextgqa_choice_question(asked, options)
                    start, end = self._times.get(qid, NO_ANSWER)
                    bound = None if [start, end] == NO_ANSWER else (start, end)
                    yield Query(qid, video, question, item, bound)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, SettingsError):
                raise
            raise self.misfit(error) from None

    @property
    def times_path(self) -> Path:
        """Where stage 2 reads what stage 1 wrote."""
        return self.settings.timestamps or self.settings.out_dir / TIMES

    @cached_property
    def _times(self) -> dict[str, list[float]]:
        rows = self.read_annotation(self.times_path, flag="timestamps")
        return {row["qid"]: [row["timestamp"][0], row["timestamp"][-1]] for row in rows}

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"qid", "timestamp"}]`, in stage 2 with `"prediction"` and `"target"`."""
        results = []
        for query, answer in answered:
            if answer is None:
                continue
            if self.settings.stage == 1:
                result = {"qid": query.id, "timestamp": rounded_intervals(answer)[0]}
            else:
                chosen = chosen_option(answer.text, query.item)
                result = {
                    "qid": query.id,
                    "prediction": chosen,
                    "timestamp": list(query.bound or NO_ANSWER),
                    "target": query.item["answer"],
                }
                if (published := published_option(answer.text)) != chosen:
                    result["published_prediction"] = published
            results.append(result)
        path = out_dir / (TIMES if self.settings.stage == 1 else ANSWERS)
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated locations, where the metric's file is at hand; stage 2 names no times."""
        if self.settings.stage == 2:
            return []
        _, video, *_, number = query.id.split("_")
        locations = self._locations.get(video, {}).get("location", {})
        return [Event(*window) for window in locations.get(number, [])]

    def choice(self, query: Query, answer: Answer) -> Choice | None:
        """The option that stage 2 names."""
        if self.settings.stage == 1:
            return None
        right = query.item["answer"]
        expected = f"({right}) {query.item[f'a{right}']}"
        chosen = chosen_option(answer.text, query.item)
        return Choice(expected, str(chosen) == str(right), chosen != -1)

    @cached_property
    def _locations(self) -> dict[str, dict]:
        path = self.settings.ground_truth
        return self.read_annotation(path, flag="ground-truth") if path.is_file() else {}


def chosen_option(text: str, item: dict) -> str | int:
    """Return the digits of the option that an answer names, or -1."""
    texts = [item[f"a{number}"] for number in range(item["num_option"])]
    place = read_choice(text, Options([str(number) for number in range(len(texts))], texts))
    return -1 if place is None else str(place)


def published_option(text: str) -> str | int:
    """Return what the published script reads: the digits of the first match, or -1."""
    match = _PUBLISHED.search(text)
    return next(group for group in match.groups() if group) if match else -1
