"""Whatever one line of an annotation file holds is that line's problem, and the rest is read."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from distime import DisTimeProcessor
from distime.cli import main
from distime.data.checking import check
from distime.data.dataset import DataSettings, TrainingData
from distime.data.meta import DataSource
from distime.data.schema import parse_item
from distime.processing.image import load_image
from distime.toy.tiny import write_tiny_checkpoint


def talk(question="q", answer="a"):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


GOOD = {"conversations": talk()}
LATER = {"conversations": talk(answer=" ")}  # wrong too, and to be reported all the same


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny_checkpoint(folder, ["q a"], hidden_size=32, num_layers=1, num_frames=2)
    return DisTimeProcessor.from_pretrained(folder)


def write(folder, lines):
    encoded = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
    (folder / "train.jsonl").write_bytes(b"\n".join(encoded) + b"\n")
    entry = {"root": ".", "annotation": "train.jsonl"}
    (folder / "meta.json").write_text(json.dumps({"toy": entry}))
    return folder / "meta.json"


def assert_that_line_alone_is_wrong(folder, processor, line, message=""):
    """Between a good line and another wrong one."""
    meta = write(folder, [GOOD, line, LATER])
    found = [(p.line, p.severity) for p in check(meta)]
    assert found == [(2, "error"), (3, "error")]
    said = [str(problem) for problem in check(meta)][0]
    assert message in said and "\n" not in said
    said.encode()  # can be printed
    data = TrainingData(meta, processor, DataSettings())
    for index in range(3):
        group = data[index, 0]
        assert group.places == [f"{folder / 'train.jsonl'}:1"]
        assert [f"train.jsonl:{index + 1}: " in one for one in group.problems] == [True] * (
            index > 0
        )
    if len(said) < 300:
        assert message in data[1, 0].problems[0]


def image_item(path):
    return {"image": path, "conversations": talk()}


LINES = {
    "surrogate in a question": ({"conversations": talk("\ud83d")}, "turn 1 holds half of a char"),
    "surrogate in an answer": ({"conversations": talk("q", "a \udc00 a")}, "turn 2 holds half"),
    "surrogate in a path": (image_item("\ud800.png"), "holds half of a character"),
    "surrogate in a key": (b'{"\\ud800": 1, "\\ud800": 2}', "is there twice"),
    "deep list": (b"[" * 100_000, "nested too deeply"),
    "deep object": (b'{"conversations": ' * 100_000, "nested too deeply"),
    "deep but whole": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    "deep enough to be read": (
        {"conversations": json.loads("[" * 500 + "]" * 500)},
        "turn 1 must be an object",
    ),
    "key twice": (b'{"conversations": [], "conversations": []}', '"conversations" is there twice'),
    "key twice inside": (b'{"conversations": [{"from": "gpt", "from": "human"}]}', '"from" is'),
    "number of 5000 digits": (b'{"tgt": [' + b"1" * 5000 + b"]}", "thousands of digits"),
    "number of 400 digits": ({**GOOD, "tgt": [10**400, 1]}, "finite numbers"),
    "NaN": ({**GOOD, "tgt": [float("nan"), 1]}, "finite numbers"),
    "a list": (b'["a"]', "must be a JSON object"),
    "a text": (b'"a"', "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "NUL": (b"\x00\x00", "no JSON"),
    "cut off": (b'{"conversations": [', "no JSON"),
    "latin-1": (b'{"a": "\xe9"}', "no UTF-8"),
    "two objects": (b"{} {}", "no JSON"),
    "base64": (
        image_item(base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(6000)).decode()),
        "in base64: write them to a file",
    ),
    "short base64": (
        image_item(base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(300)).decode()),
        "in base64",
    ),
    "data url": (image_item("data:image/png;base64,iVBORw0KGgo="), "in base64"),
    "url": (image_item("https://example.com/a.png"), "is a URL: download the file"),
    "long name": (image_item("é" * 200), "is too long for a path"),
    "long path": (image_item("a/" * 3000), "is too long for a path"),
    "NUL in a path": (image_item("a\0.png"), "NUL"),
    "folder as a picture": (image_item("."), "not a file"),
    "path through a file": (image_item("meta.json/a.png"), "a.png"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "message"), LINES.values(), ids=LINES.keys())
def test_a_line_is_its_own_problem(tmp_path, processor, line, message):
    assert_that_line_alone_is_wrong(tmp_path, processor, line, message)


@given(line=st.binary(min_size=1, max_size=40))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_their_own_problem(tmp_path, processor, line):
    line = b"{" + line.replace(b"\n", b"")
    assert_that_line_alone_is_wrong(tmp_path, processor, line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("video", "image", "tgt", "conversations", "videos", "images", "messages", "system", "clip")


@given(record=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5) | JSON)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_at_worst_an_error(tmp_path, record):
    meta = write(tmp_path, [GOOD, json.dumps(record).encode("utf-8", "replace"), LATER])
    for problem in check(meta):
        str(problem).encode()
        assert problem.line in (2, 3)


def test_a_first_line_that_is_a_list_is_not_the_whole_file(tmp_path):
    found = [(p.line, p.message) for p in check(write(tmp_path, [b"[1, 2]", GOOD, LATER]))]
    assert [line for line, _ in found] == [1, 3]
    ((line, message),) = [(p.line, p.message) for p in check(write(tmp_path, [[GOOD, GOOD]]))]
    assert line is None and "the file is one JSON list" in message


def test_a_folder_without_permission_is_named(processor):
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("changes to a user without rights, which only root may")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "secret").mkdir(mode=0o700)
    Image.new("RGB", (8, 8)).save(folder / "secret" / "a.png")
    meta = write(folder, [GOOD, image_item("secret/a.png"), LATER])
    data = TrainingData(meta, processor, DataSettings())
    os.seteuid(65534)
    try:
        found = [(p.line, p.message) for p in check(meta)]
        group = data[1, 0]
    finally:
        os.seteuid(0)
    assert [line for line, _ in found] == [2, 3] and "Permission denied" in found[0][1]
    assert "Permission denied" in group.problems[0]


# ------------------------------------------------------------------------------------ pictures


def noise(size=64, kind=np.uint8, channels=(3,)):
    most = np.iinfo(kind).max
    return np.random.default_rng(0).integers(0, most, (size, size, *channels), dtype=kind)


def picture_bytes(form, **options):
    buffer = io.BytesIO()
    Image.fromarray(noise(200)).save(buffer, form, **options)
    return buffer.getvalue()


def png_with_text(kind):
    info = PngImagePlugin.PngInfo()
    if kind == "compressed":
        info.add_text("comment", "a" * 3_000_000, zip=True)
    else:
        for number in range(70):
            info.add_text(f"comment {number}", "a" * 1_000_000)
    return picture_bytes("PNG", pnginfo=info)


def huge_png():
    """Says to have 40,000 x 40,000 pixels."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def halved(data):
    return data[: len(data) // 2]


def zero_filled(data):
    return halved(data) + bytes(len(data) - len(data) // 2)


BROKEN_PICTURES = {
    "more pixels than Pillow reads": huge_png,
    "large compressed text": lambda: png_with_text("compressed"),
    "large text": lambda: png_with_text("plain"),
    **{
        f"{cut.__name__} {form}": lambda form=form, cut=cut: cut(picture_bytes(form))
        for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF")
        for cut in (halved, zero_filled)
        # Of these, zeros are pixels like others.
        if cut is halved or form in ("PNG", "JPEG")
    },
    "halved progressive JPEG": lambda: halved(picture_bytes("JPEG", progressive=True)),
    "zero_filled progressive JPEG": lambda: zero_filled(picture_bytes("JPEG", progressive=True)),
    "32-bit floats": lambda: float_tiff(),
}


def float_tiff():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).random((8, 8), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize("make", BROKEN_PICTURES.values(), ids=BROKEN_PICTURES.keys())
def test_a_broken_picture_is_its_lines_problem(tmp_path, processor, make):
    (tmp_path / "a.bin").write_bytes(make())
    assert_that_line_alone_is_wrong(tmp_path, processor, image_item("a.bin"), "a.bin")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_grey_keeps_its_brightness(tmp_path, suffix):
    grey = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    shown = np.asarray(load_image(tmp_path / f"a{suffix}")).astype(float)
    np.testing.assert_allclose(shown, np.repeat(grey[..., None] / 257.0, 3, axis=2), atol=1.0)


@pytest.mark.parametrize("mode", ["CMYK", "P", "PA", "LA", "RGBA", "1", "L", "YCbCr"])
def test_pictures_of_every_mode_are_read(tmp_path, processor, mode):
    form = {"CMYK": "JPEG", "YCbCr": "JPEG", "PA": "TIFF"}.get(mode, "PNG")
    image = Image.fromarray(noise(8))
    image = image.convert("LA").convert("PA") if mode == "PA" else image.convert(mode)
    image.save(tmp_path / "a.bin", form)
    meta = write(tmp_path, [image_item("a.bin")])
    assert list(check(meta)) == []
    assert not TrainingData(meta, processor, DataSettings())[0, 0].problems


# ------------------------------------------------------------------------------------ dialects

MESSAGES = [{"role": "user", "content": "<video>\nq"}, {"role": "assistant", "content": "a"}]
VIDEO_TALK = talk("<video>\nq")
IMAGES_TALK = talk("<image> <image>")
SAME = {
    "videos": (
        {"videos": ["a.mp4"], "conversations": VIDEO_TALK},
        {"video": "a.mp4", "conversations": VIDEO_TALK},
    ),
    "images": (
        {"images": ["a", "b"], "conversations": IMAGES_TALK},
        {"image": ["a", "b"], "conversations": IMAGES_TALK},
    ),
    "messages": (
        {"video": "a.mp4", "messages": MESSAGES},
        {"video": "a.mp4", "conversations": VIDEO_TALK},
    ),
    "system": (
        {"system": "s", "conversations": talk()},
        {"conversations": [{"from": "system", "value": "s"}, *talk()]},
    ),
    "all at once": (
        {"system": "s", "videos": ["a.mp4"], "images": [], "messages": MESSAGES},
        {"video": "a.mp4", "conversations": [{"from": "system", "value": "s"}, *VIDEO_TALK]},
    ),
    "nothing in them": (
        {"system": "", "videos": [], "images": None, "conversations": talk()},
        {"conversations": talk()},
    ),
}  # fmt: skip


def parse(record):
    return parse_item(record, DataSource("toy", Path("root"), Path("train.jsonl")), 1)


@pytest.mark.parametrize(("theirs", "ours"), SAME.values(), ids=SAME.keys())
def test_other_formats_are_read(theirs, ours):
    assert parse(theirs) == parse(ours)


REFUSED = {
    "two videos": ({"videos": ["a", "b"], "conversations": talk()}, '"videos" names 2 videos'),
    "videos": ({"videos": [{"path": "a"}], "conversations": talk()}, '"videos" is ['),
    "images": ({"images": [{"path": "a"}], "conversations": talk()}, '"image" is ['),
    "both": ({"video": "a", "videos": ["a"], "conversations": talk()}, 'stands beside "video"'),
    "both turns": ({"messages": MESSAGES, "conversations": talk()}, 'beside "conversations"'),
    "content in parts": (
        {"messages": [{"role": "user", "content": [{"type": "video", "video": "a"}]}]},
        'the "content" of turn 1 is [{"type"',
    ),
    "unknown role": ({"messages": [{"role": "tool", "content": ""}]}, 'is from "tool"'),
    "two systems": (
        {"system": "s", "conversations": [{"from": "system", "value": "s"}, *talk()]},
        '"system" stands beside a "system" turn',
    ),
    "system is no text": ({"system": ["s"], "conversations": talk()}, '"system" is ["s"]'),
    "misnamed": ({"video_path": "a", "conversations": talk()}, 'rename it to "video"'),
    "capitals": ({"Images": ["a"], "conversations": talk()}, 'rename it to "image"'),
    "capital video": ({"Video": "a", "conversations": VIDEO_TALK}, 'rename it to "video"'),
}  # fmt: skip


@pytest.mark.parametrize(("record", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_read_is_refused_by_name(tmp_path, record, message):
    (problem,) = [p for p in check(write(tmp_path, [record])) if message in p.message]
    assert problem.severity == "error"
    assert not any("remove the tag" in p.message for p in check(tmp_path / "meta.json"))


def test_equal_problems_are_summed_up(tmp_path, capsys):
    lines = [{"video": f"{n}.mp4", "tgt": [n, 0], "conversations": talk("<video>", "<TIME_STAMP>")}
             for n in range(1, 400)]  # fmt: skip
    lines += [{"video": f"a folder/{n} b.mp4", "conversations": talk()} for n in range(600)]
    assert main(["check", str(write(tmp_path, lines)), "--no-open", "--workers", "1"]) == 1
    *said, counts = capsys.readouterr().out.splitlines()
    assert len(said) < 30
    assert sum("ends before it starts" in line for line in said) == 11
    assert any("389 more" in line and "ends before it starts" in line for line in said)
    assert any("590 more" in line and "no such file" in line for line in said)
    assert "999 errors" in counts
    assert main(["check", str(tmp_path / "meta.json"), "--no-open", "--show", "1000"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1000
