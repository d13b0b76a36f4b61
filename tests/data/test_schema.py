import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distime.data.checking import check
from distime.data.lines import JsonlIndex
from distime.data.meta import DataSource, read_meta
from distime.data.problems import AnnotationError
from distime.data.schema import clamp_targets, parse_item, read_item
from distime.processing.prompt import Turn
from distime.processing.video import encode_video

GOOD = {
    "video": "a.mp4",
    "tgt": [0.5, 1.5],
    "conversations": [
        {"from": "human", "value": "<video>\nWhen?"},
        {"from": "gpt", "value": "At <TIME_STAMP>."},
    ],
}


def item(**changes):
    """GOOD with changes; None removes a key."""
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not None}


def turns(*pairs):
    return [{"from": speaker, "value": text} for speaker, text in pairs]


@pytest.fixture
def folder(tmp_path):
    """A meta file with one source of one video of two seconds, one image and one good item."""
    (tmp_path / "media").mkdir()
    frames = (np.full((16, 16, 3), value, np.uint8) for value in range(0, 160, 10))
    encode_video(tmp_path / "media" / "a.mp4", frames, fps=8)
    Image.new("RGB", (8, 8)).save(tmp_path / "media" / "a.png")
    write(tmp_path, [GOOD])
    return tmp_path


def write(folder, lines, **entry):
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (folder / "train.jsonl").write_text(text)
    source = {"root": "media", "annotation": "train.jsonl", **entry}
    (folder / "meta.json").write_text(json.dumps({"toy": source}))


def problems(folder, **settings):
    """Every problem as (file name, line, severity, message)."""
    found = check(folder / "meta.json", **settings)
    return [(p.file.name, p.line, p.severity, p.message) for p in found]


def parse(record, root="media"):
    return parse_item(record, DataSource("toy", Path(root), Path("train.jsonl")), 7)


# ------------------------------------------------------------------------------------- items


def test_an_item_is_read():
    read = parse(GOOD)
    assert read.video == Path("media/a.mp4")
    assert read.targets == ((0.5, 1.5),)
    assert read.turns == (Turn("human", "<video>\nWhen?"), Turn("gpt", "At <TIME_STAMP>."))
    assert read.place == "train.jsonl:7"


def test_images_text_and_absolute_paths_are_read():
    chat = turns(("system", "s"), ("human", "q"), ("gpt", "a"), ("human", "q"), ("gpt", "a"))
    text = parse({"conversations": chat})
    assert (text.video, text.images, text.targets, len(text.turns)) == (None, (), (), 5)
    one = parse({"image": "a.png", "conversations": turns(("human", "q"), ("gpt", "a"))})
    assert one.images == (Path("media/a.png"),)
    two = turns(("human", "<image> or <image>?"), ("gpt", "a"))
    assert parse({"image": ["/x/a.png", "b.png"], "conversations": two}).images == (
        Path("/x/a.png"),
        Path("media/b.png"),
    )
    assert parse(item(video="/elsewhere/../a.mp4")).video == Path("/elsewhere/../a.mp4")


def test_times_in_questions_count():
    asked = turns(("human", "<video> at <TIME_STAMP>?"), ("gpt", "At <TIME_STAMP>, <TIME_STAMP>."))
    assert parse(item(tgt=[0, 1, 1, 2, 3.5, 4], conversations=asked)).targets == (
        (0.0, 1.0),
        (1.0, 2.0),
        (3.5, 4.0),
    )


Q, A = ("human", "<video>\nq"), ("gpt", "At <TIME_STAMP>.")

BAD_ITEMS = {
    "not an object": (["a"], "must be a JSON object, this is a list"),
    "no conversations": (item(conversations=None), '"conversations" is missing or empty: write'),
    "empty conversations": (item(conversations=[]), '"conversations" is missing or empty'),
    "turn without value": (
        item(conversations=[{"from": "human"}]),
        "turn 1 must be an object with",
    ),
    "openai speaker": (
        item(conversations=turns(("user", "q"), A)),
        'turn 1 is from "user": write "human"',
    ),
    "unknown speaker": (
        item(conversations=turns(Q, ("robot", "a"))),
        'turn 2 is from "robot": use one of system, human, gpt',
    ),
    "no speaker": (item(conversations=turns((None, "q"), A)), "turn 1 is from null: use one of"),
    "text is a number": (item(conversations=turns(Q, ("gpt", 3))), '"value" of turn 2 is 3: give'),
    "empty turn": (item(conversations=turns(Q, ("gpt", " \n"))), "turn 2 is empty: write its text"),
    "two questions": (
        item(conversations=turns(Q, Q, A)),
        'turn 2 is from "human" where "gpt" is due',
    ),
    "answer first": (item(conversations=turns(A)), 'turn 1 is from "gpt" where "human" is due'),
    "system later": (
        item(conversations=turns(Q, ("system", "s"), A)),
        'turn 2 is from "system" where "gpt" is due',
    ),
    "no answer": (
        item(conversations=turns(Q)),
        'no answer: end the conversation with a "gpt" turn',
    ),
    "system alone": (item(conversations=turns(("system", "s"))), "the last turn has no answer"),
    "too few times": (
        item(conversations=turns(Q, ("gpt", "<TIME_STAMP>, <TIME_STAMP>"))),
        '"tgt" has 1 intervals for 2 <TIME_STAMP> in the turns: give one interval',
    ),
    "too many times": (item(tgt=[0, 1, 1, 2]), '"tgt" has 2 intervals for 1 <TIME_STAMP>'),
    "no tgt": (item(tgt=None), '"tgt" has 0 intervals for 1 <TIME_STAMP>'),
    "odd tgt": (item(tgt=[0, 1, 2]), '"tgt" has 3 times: give a start and an end'),
    "tgt without a token": (
        item(conversations=turns(Q, ("gpt", "no"))),
        '"tgt" has 2 times, but no turn has a <TIME_STAMP>: write one in the answer',
    ),
    "text in tgt": (item(tgt=["0", 1]), '"tgt" is ["0", 1]: give a flat list of finite numbers'),
    "pairs in tgt": (item(tgt=[[0, 1]]), '"tgt" is [[0, 1]]: give a flat list of finite numbers'),
    "tgt is a number": (item(tgt=3), '"tgt" is 3: give a flat list'),
    "true in tgt": (item(tgt=[0, True]), '"tgt" is [0, true]: give a flat list'),
    "NaN": (item(tgt=[0, float("nan")]), '"tgt" is [0, NaN]: give a flat list'),
    "infinite": (item(tgt=[0, float("inf")]), '"tgt" is [0, Infinity]: give a flat list'),
    "huge": (item(tgt=[0, 10**400]), '"tgt" is [0, 1000'),
    "negative": (item(tgt=[-1, 1]), "interval [-1, 1] is negative: times count from the video's"),
    "reversed": (item(tgt=[2, 1]), "interval [2, 1] ends before it starts: swap the two"),
    "times without video": (
        item(video=None, conversations=turns(("human", "q"), A)),
        "<TIME_STAMP> needs a video: name one",
    ),
    "video and image": (item(image="a.png"), 'a "video" or an "image", not both: make two items'),
    "video is a list": (item(video=["a.mp4"]), '"video" is ["a.mp4"]: give one path'),
    "empty video": (item(video=""), '"video" is "": give one path'),
    "image is a number": (
        item(video=None, image=3),
        '"image" is 3: give a path or a list of paths',
    ),
    "empty image": (item(video=None, image=""), '"image" is [""]: give a path or a list of'),
    "path out of root": (item(video="../a.mp4"), '"../a.mp4" leaves the root folder: write an'),
    "fewer tags": (
        {"image": ["a", "b"], "conversations": turns(("human", "<image>"), ("gpt", "a"))},
        "1 <image> tags for 2 images: write one tag per image",
    ),
    "more tags": (
        {"image": "a", "conversations": turns(("human", "<image><image>"), ("gpt", "a"))},
        "2 <image> tags for 1 images",
    ),
    "video tag in text": (
        {"conversations": turns(("human", "<video>"), ("gpt", "a"))},
        "<video> in an item without a video: remove the tag",
    ),
    "image tag for video": (
        item(conversations=turns(("human", "<image>"), A)),
        "takes one <video> tag and no <image>, found 0 and 1",
    ),
    "tag in a later turn": (
        item(conversations=turns(Q, A, ("human", "<video>"), ("gpt", "a"))),
        "<video> outside the first human turn: move the tag there",
    ),
    "reserved token": (
        item(conversations=turns(Q, ("gpt", "<TIME_STAMP> <IMG_CONTEXT>"))),
        "<IMG_CONTEXT> is written by the processor: remove it from the text",
    ),
}


@pytest.mark.parametrize(("record", "message"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_bad_items_are_named_with_the_mend(record, message):
    with pytest.raises(AnnotationError, match=rf"^train\.jsonl:7: .*{re.escape(message)}"):
        parse(record)


def test_the_check_reports_every_bad_item_with_its_line(folder):
    write(folder, [GOOD, *(record for record, _ in BAD_ITEMS.values()), GOOD])
    found = problems(folder)
    by_line = {line: message for _, line, severity, message in found if severity == "error"}
    assert sorted(by_line) == list(range(2, len(BAD_ITEMS) + 2))
    for line, (_, message) in enumerate(BAD_ITEMS.values(), 2):
        assert message in by_line[line]


def test_one_item_may_have_several_problems(folder):
    write(folder, [item(tgt=[-1, 1, 2, 1], conversations=turns(Q, ("gpt", "<TIME_STAMP>" * 2)))])
    messages = [message for *_, message in problems(folder)]
    assert len(messages) == 2
    assert "[-1, 1] is negative" in messages[0]
    assert "[2, 1] ends before" in messages[1]


# ------------------------------------------------------------------------------------- files


def test_a_good_mixture_has_no_problems(folder):
    picture = {"image": "a.png", "conversations": turns(("human", "q"), ("gpt", "a"))}
    write(folder, [GOOD, picture], length=2, repeat_time=2, data_augment=True)
    assert problems(folder) == []


def test_files_are_looked_at(folder):
    (folder / "media" / "broken.mp4").write_bytes(b"\0" * 100)
    (folder / "media" / "broken.png").write_bytes(b"\0" * 100)
    picture = {"image": "broken.png", "conversations": turns(("human", "q"), ("gpt", "a"))}
    lines = [item(video="none.mp4"), item(video="broken.mp4"), {**picture, "image": "none.png"}]
    write(folder, [*lines, picture])
    found = {line: message for _, line, _, message in problems(folder)}
    assert "media/none.mp4: there is no such file: copy it there" in found[1]
    assert "broken.mp4" in found[2]
    assert "media/none.png: there is no such file" in found[3]
    assert "broken.png: no readable image" in found[4]
    assert set(found) == {1, 2, 3, 4}
    assert {line for _, line, *_ in problems(folder, open_media=False)} == {1, 3}


def test_times_are_compared_with_the_video(folder):
    write(folder, [item(tgt=[0.5, 2]), item(tgt=[0.5, 2.5]), item(tgt=[3, 4]), item(tgt=[1, 1])])
    counts = []
    found = problems(folder, on_line=lambda line: counts.append(line.num_clamped))
    assert [(line, severity) for _, line, severity, _ in found] == [
        (2, "warning"),
        (3, "error"),
        (4, "warning"),
    ]
    messages = [message for *_, message in found]
    assert "interval [0.5, 2.5] ends beyond the video's 2 seconds and will be cut" in messages[0]
    assert "interval [3.0, 4.0] begins behind the end of the video at 2 seconds" in messages[1]
    assert "interval [1, 1] has no length" in messages[2]
    assert counts == [0, 1, 0, 0]


def test_targets_are_clamped_to_the_duration():
    assert clamp_targets([(0.0, 1.0), (1.5, 2.5), (3.0, 4.0)], 2.0) == (
        [(0.0, 1.0), (1.5, 2.0), (2.0, 2.0)],
        2,
    )


def test_clip_is_ignored_with_a_warning(folder):
    write(folder, [item(clip=[0, 1])])
    ((_, line, severity, message),) = problems(folder)
    assert (line, severity) == (1, "warning")
    assert '"clip" is ignored: cut the video file' in message


# -------------------------------------------------------------------------------------- meta


def test_meta_paths_are_relative_to_the_meta_file(folder):
    write(folder, [GOOD], repeat_time=0.5, length=3)
    (source,) = read_meta(folder / "meta.json")
    assert source == DataSource("toy", folder / "media", folder / "train.jsonl", 0.5, 3, False)


BAD_ENTRIES = {
    "typo": ({"repeat_tmie": 2}, 'unknown key "repeat_tmie": did you mean "repeat_time"?'),
    "unknown": ({"xyz": 2}, 'unknown key "xyz": known: root, annotation, repeat_time'),
    "no annotation": ({"annotation": None}, '"annotation" must be a path, not null'),
    "annotation missing": ({"annotation": "no.jsonl"}, "there is no file"),
    "root missing": ({"root": "nowhere"}, "there is no folder"),
    "repeat 0": ({"repeat_time": 0}, '"repeat_time" is 0: give a fraction below 1'),
    "repeat 1.5": ({"repeat_time": 1.5}, '"repeat_time" is 1.5: give a fraction below 1'),
    "repeat text": ({"repeat_time": "2"}, '"repeat_time" is "2"'),
    "length": ({"length": "9"}, '"length" is "9": give the number of items'),
    "augment": ({"data_augment": "yes"}, '"data_augment" is "yes": give true or false'),
}


@pytest.mark.parametrize(("entry", "message"), BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
def test_bad_meta_entries_are_named_with_the_mend(folder, entry, message):
    write(folder, [GOOD], **entry)
    with pytest.raises(AnnotationError, match=rf'meta\.json: source "toy": .*{re.escape(message)}'):
        read_meta(folder / "meta.json")
    assert any(message in found[3] and found[2] == "error" for found in problems(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": \n{]}', r"meta\.json:2: no JSON"),
        ("[]", r"meta\.json: the meta file must name its sources: \{\"name\": \{\"root\""),
        ("{}", "must name its sources"),
        ('{"a": 1}', 'source "a": must be an object with the keys root, annotation'),
        ('{"a": {}, "a": {}}', 'the key "a" is there twice'),
    ],
)
def test_bad_meta_files(tmp_path, text, message):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_meta(tmp_path / "meta.json")
    assert [p.severity for p in check(tmp_path / "meta.json")] == ["error"]


def test_a_missing_meta_file(tmp_path):
    with pytest.raises(AnnotationError, match=r"no\.json: cannot read the meta file: No such file"):
        read_meta(tmp_path / "no.json")


def test_lengths_and_fractions_are_compared_with_the_file(folder):
    write(folder, [GOOD] * 3, length=4, repeat_time=0.1)
    (_, none, error, few), (_, _, warning, length) = problems(folder)
    assert (none, error, warning) == (None, "error", "warning")
    assert '"repeat_time" 0.1 of 3 items is none: raise it' in few
    assert '"length" is 4, but' in length
    assert "has 3 items" in length
    write(folder, [])
    assert "has no items" in problems(folder)[0][3]


def test_repeats_and_head_slices():
    def indices(repeat_time, count=5):
        source = DataSource("toy", Path(), Path(), repeat_time)
        return source.sample_indices(count).tolist()

    assert indices(1) == [0, 1, 2, 3, 4]
    assert indices(2) == [0, 1, 2, 3, 4] * 2
    assert indices(0.5) == [0, 1]
    assert indices(3.0, 1) == [0, 0, 0]


# ------------------------------------------------------------------------------------- jsonl


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}\n{"a": "\xc3\xa9"}\n',
        b'{"a": 1}\n{"a": "\xc3\xa9"}',
        b'\xef\xbb\xbf{"a": 1}\r\n{"a": "\xc3\xa9"}\r\n\r\n',
        b'\xef\xbb\xbf{"a": 1}\n{"a": "\xc3\xa9"}\n  \n',
    ],
)
def test_jsonl_is_read_by_line(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    index = JsonlIndex(tmp_path / "a.jsonl")
    for reader in (index, pickle.loads(pickle.dumps(index))):
        assert len(reader) == 2
        assert [reader.record(i) for i in (1, 0)] == [{"a": "\u00e9"}, {"a": 1}]
        assert [reader.line_number(i) for i in range(2)] == [1, 2]


def test_line_numbers_count_blank_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"\n{json.dumps(GOOD)}\n\n{json.dumps(item(tgt=[1]))}\n")
    index = JsonlIndex(tmp_path / "a.jsonl")
    source = DataSource("toy", tmp_path, tmp_path / "a.jsonl")
    assert read_item(index, 0, source).place.endswith("a.jsonl:2")
    with pytest.raises(AnnotationError, match=r'a\.jsonl:4: "tgt" has 1 times'):
        read_item(index, 1, source)


def test_broken_lines_are_named(folder):
    write(folder, [GOOD, '{"video": ', GOOD])
    with (folder / "train.jsonl").open("ab") as file:
        file.write(b'"\xff"\n')
    index = JsonlIndex(folder / "train.jsonl")
    with pytest.raises(
        AnnotationError, match=r"train\.jsonl:2: no JSON \(.*column 10\): write one"
    ):
        index.record(1)
    with pytest.raises(AnnotationError, match=r"train\.jsonl:4: no UTF-8 text .*convert it"):
        index.record(3)
    found = problems(folder)
    assert [(line, severity) for _, line, severity, _ in found] == [(2, "error"), (4, "error")]
    assert found[0][3].startswith("no JSON (")


def test_a_json_list_is_refused_once(folder):
    (folder / "train.jsonl").write_text(json.dumps([GOOD, GOOD], indent=1))
    with pytest.raises(AnnotationError, match=r"train\.jsonl:1: the file is one JSON list: write"):
        JsonlIndex(folder / "train.jsonl")
    ((name, _, severity, message),) = problems(folder)
    assert (name, severity) == ("meta.json", "error")
    assert "the file is one JSON list" in message


def test_a_missing_annotation_file(tmp_path):
    with pytest.raises(AnnotationError, match=r"no\.jsonl: cannot read the annotation file: No "):
        JsonlIndex(tmp_path / "no.jsonl")


@pytest.mark.golden
def test_recorded_training_file_is_valid(golden_root):
    folder = golden_root / "common"
    found = list(check(folder / "meta.json"))
    assert [(p.line, p.severity) for p in found] == [(6, "warning")]
    (source,) = read_meta(folder / "meta.json")
    index = JsonlIndex(source.annotation)
    assert len(index) == source.length == 13
    assert read_item(index, 1, source).targets == ((0.0, 3.25), (4.5, 11.9))
