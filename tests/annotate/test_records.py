"""Files of records: what is written is read again, and bad lines are named."""

import math

import pytest

from distime.annotate.locator import rounded
from distime.annotate.records import (
    Candidate,
    Caption,
    Captioned,
    Compared,
    Described,
    Dropped,
    EventText,
    Located,
    Location,
    RecordFile,
    Selected,
    SelectedEvent,
    Trouble,
    write_records,
)
from distime.data.problems import AnnotationError

RECORDS = [
    Captioned("a.mp4", 9.0, (Caption("a door"), Caption("a dog", Location(1.0, 2.0, 0.5)))),
    Described("ä/b.mp4", 9.5, (EventText("v1-0", "a “dog”", ("file",), ("the dog",)),)),
    Described("none.mp4", 3.0),
    Located("a.mp4", {"v1-0": Location(1.0, 2.5), "v1-1": Location(0.0, 9.0, 0.25)}),
    Compared("a.mp4", {"v1-0": {"clip": 0.5}}),
    Selected("a.mp4", 9.0, (SelectedEvent("v1-0", "a dog", 1.0, 2.0, 0.5, "clip", 0.25),)),
    Dropped("a.mp4", "v1-1", "x", "no time", candidates={"clip": Candidate(0.0, 1.0, 0.1)}),
    Trouble(None, "events", "file", "nothing"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: type(one).__name__)
def test_what_is_written_is_read(record, tmp_path):
    path = tmp_path / "new folder" / "records.jsonl"
    assert write_records(path, [record] * 3) == 3
    file = RecordFile(path, type(record))
    assert list(file) == [record] * 3
    assert file[1] == record


def test_a_record_is_found_by_its_video(tmp_path):
    records = [Described(f"{number}.mp4", float(number + 1)) for number in range(50)]
    write_records(tmp_path / "events.jsonl", records)
    file = RecordFile(tmp_path / "events.jsonl", Described)
    assert file.of_video("31.mp4") == records[31]
    assert file.of_video("51.mp4") is None


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "no JSON"),
        ("[]", "object"),
        ('{"video": "b.mp4"}', '"duration" is missing'),
        ('{"video": "b.mp4", "duration": "9"}', '"duration" is "9"'),
        ('{"video": "b.mp4", "duration": true}', '"duration" is true'),
        ('{"video": "b.mp4", "duration": 1, "event": []}', 'unknown key "event"'),
        ('{"video": "b.mp4", "duration": 1, "events": {}}', '"events" is {}'),
        ('{"video": "b.mp4", "duration": 1, "events": [{"id": "v"}]}', '"text" is missing'),
    ],
)
def test_a_bad_line_is_named(line, named, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"video": "a.mp4", "duration": 1}\n' + line + "\n")
    with pytest.raises(AnnotationError) as caught:
        list(RecordFile(path, Described))
    assert f"{path}:2: " in str(caught.value) and named in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "selected.jsonl"
    write_records(path, [Selected("a.mp4", 1.0)])

    def failing():
        yield Selected("b.mp4", 1.0)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_records(path, failing())
    assert [one.video for one in RecordFile(path, Selected)] == ["a.mp4"]
    assert [one.name for one in tmp_path.iterdir()] == ["selected.jsonl"]


def test_a_model_without_distributions_has_times_of_unknown_confidence():
    assert rounded(1, 2, math.nan, 4) == rounded(1, 2, None, 4) == Location(1, 2, None)
    assert rounded(1, 2, 0.56789, 4).confidence == 0.5679
