"""The arithmetic: similarity curves, scores, and which events are kept."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from distime.annotate.annotation_settings import AnnotationSettings
from distime.annotate.curves import best_run, stands_out
from distime.annotate.records import (
    AnnotationFolder,
    Described,
    Dropped,
    EventText,
    Located,
    Location,
    write_records,
)
from distime.annotate.selecting import judge, run, select
from distime.errors import DisTimeError

EVENT = EventText("v-0", "a dog barks")


def settings(**options) -> AnnotationSettings:
    return AnnotationSettings(videos="videos", out="out", stages=("selection",), **options)


def test_the_run_that_stands_out():
    curve = np.array([0.1, 0.1, 0.8, 0.9, 0.8, 0.1, 0.1, 0.1])
    first, end, contrast = best_run(curve)
    assert (first, end) == (2, 5)
    assert contrast == pytest.approx((2.5 / 3 - 0.1) / 0.8)


def test_a_dip_does_not_end_a_run_but_a_gap_does():
    assert best_run(np.array([0, 0, 9, 5, 9, 9, 0, 0, 0, 0.0]))[:2] == (2, 6)
    assert best_run(np.array([0, 9, 0, 0, 0, 9, 9, 0, 0, 0.0]))[:2] == (5, 7)


@pytest.mark.parametrize("curve", [[0.5], [0.5, 0.5, 0.5], [0.3] * 100])
def test_a_flat_curve_is_one_run_of_no_confidence(curve):
    assert best_run(np.array(curve)) == (0, len(curve), 0.0)


def test_a_run_scales_with_its_curve():
    curve = np.random.default_rng(0).normal(size=40)
    first, end, contrast = best_run(curve)
    assert best_run(3 * curve - 7) == (first, end, pytest.approx(contrast))
    assert 0 < contrast <= 1


def test_standing_out_is_a_probability():
    curve = np.array([0.0, 0.0, 1.0, 1.0, 0.0])
    assert stands_out(curve, 0.4, 0.8) == 1.0
    assert stands_out(curve, 0.0, 0.4) == pytest.approx((0 + 0 + 0.5) / 3)
    assert stands_out(curve, 0.0, 1.0) == 0.5
    assert stands_out(curve, 0.45, 0.46) == 1.0 - 0.5 / 4  # between centres: the frame it lies in
    assert stands_out(curve, 0.99, 1.0) == pytest.approx(0.25)


def test_a_location_is_judged_by_all_that_is_known():
    locations = {
        "a": Location(0.0, 4.0, 0.9),
        "b": Location(0.0, 5.0, 0.9),
        "c": Location(8.0, 9.0),
    }
    candidates, agreement = judge(locations, {"a": 0.5, "c": 1.0})
    assert agreement == pytest.approx(0.8 / 3, abs=1e-4)
    assert candidates["a"].consensus == pytest.approx(0.4)
    assert candidates["a"].score == pytest.approx((0.4 * 0.9 * 0.5) ** (1 / 3), abs=1e-4)
    assert candidates["b"].score == pytest.approx((0.4 * 0.9) ** 0.5, abs=1e-4)
    assert candidates["c"].score == 0.0  # nobody agrees
    assert list(candidates) == ["b", "a", "c"]


def test_one_locator_agrees_with_nobody():
    candidates, agreement = judge({"a": Location(0.0, 4.0, 0.9)}, {})
    assert agreement is None
    assert candidates["a"].consensus is None and candidates["a"].score == 0.9
    candidates, _ = judge({"a": Location(0.0, 4.0)}, {})
    assert candidates["a"].score == 0.0


def test_the_best_location_is_kept():
    locations = {"a": Location(0.0, 4.0, 0.5), "b": Location(0.0, 5.0, 0.6)}
    kept = select(EVENT, "a.mp4", locations, {}, settings(min_agreement=0.8))
    assert (kept.start, kept.end, kept.locator) == (0.0, 5.0, "b")
    assert (kept.agreement, kept.confidence, kept.similarity) == (0.8, 0.6, None)
    assert kept.score == pytest.approx((0.8 * 0.6) ** 0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("thresholds", "reason"),
    [
        ({"min_agreement": 0.81}, "agreement 0.80 is below 0.81"),
        ({"min_confidence": 0.7}, "confidence 0.60 is below 0.7"),
        ({"min_similarity": 0.1}, "similarity is not known"),
        (
            {"min_score": 0.9, "min_confidence": 1},
            "confidence 0.60 is below 1; score 0.69 is below",
        ),
    ],
)
def test_each_threshold_drops_and_says_so(thresholds, reason):
    locations = {"a": Location(0.0, 4.0, 0.5), "b": Location(0.0, 5.0, 0.6)}
    dropped = select(EVENT, "a.mp4", locations, {}, settings(**thresholds))
    assert isinstance(dropped, Dropped) and reason in dropped.reason
    assert list(dropped.candidates) == ["b", "a"] and dropped.locator == "b"
    assert dropped.agreement == 0.8


def test_an_event_that_nobody_found_is_dropped():
    assert select(EVENT, "a.mp4", {}, {}, settings()).reason == "no locator found it"


def test_memory_does_not_grow_with_the_events(tmp_path):
    def peak(count):
        """Bytes that the selection of ten events in each of so many videos needs at most."""
        folder = AnnotationFolder(tmp_path / str(count))
        ids = {f"{n}.mp4": [f"{n}-{k}" for k in range(10)] for n in range(count)}
        write_records(
            folder.events,
            (Described(n, 60.0, tuple(EventText(i, "a dog barks") for i in ids[n])) for n in ids),
        )
        for number, locator in enumerate("ab"):
            where = Location(5.0, 9.0 + number, 0.5)
            found = (Located(name, dict.fromkeys(ids[name], where)) for name in ids)
            write_records(folder.locations(locator), found)
        job = SimpleNamespace(
            folder=folder, locator_names=["a", "b"], comparer=None, settings=settings()
        )
        tracemalloc.start()
        (said, *_), _ = run(job)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert said.startswith(f"{10 * count} of {10 * count} events were kept")
        return highest, folder.selected.stat().st_size

    peak(1)  # what is imported and cached the first time
    # Below that it grows with what waits for the garbage collector, beyond it with names alone.
    (small, few), (large, many) = peak(200), peak(400)
    assert large - small < 0.4 * (many - few)


def test_settings_of_thresholds_are_shares():
    with pytest.raises(DisTimeError, match="--min-score 1.5: give a number from 0 to 1"):
        settings(min_score=1.5)
