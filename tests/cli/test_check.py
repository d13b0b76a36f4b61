import io
import json
import os
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from tokenizers import pre_tokenizers

from distime.cli import main
from distime.cli.check import histogram
from distime.processing.prompt import ChatTemplate
from distime.processing.video import encode_video


def line(times, answer="<TIME_STAMP>."):
    turns = [{"from": "human", "value": "<video>\nq"}, {"from": "gpt", "value": answer}]
    return {"video": "a.mp4", "tgt": times, "conversations": turns}


@pytest.fixture
def meta(tmp_path):
    frames = (np.full((16, 16, 3), value, np.uint8) for value in range(0, 160, 10))
    encode_video(tmp_path / "a.mp4", frames, fps=8)
    write(tmp_path, [line([0, 1])])
    return tmp_path / "meta.json"


def write(folder, lines):
    (folder / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    entry = {"root": ".", "annotation": "train.jsonl"}
    (folder / "meta.json").write_text(json.dumps({"toy": entry}))


@pytest.fixture
def checkpoint(tmp_path):
    """A published-layout base checkpoint without weights: one token for each byte."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    files = {
        "vocab.json": {piece: i for i, piece in enumerate(pieces)},
        "added_tokens.json": {token: len(pieces) + i for i, token in enumerate(added)},
        "special_tokens_map.json": {"additional_special_tokens": added[1:]},
        "tokenizer_config.json": {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        "config.json": {
            "force_image_size": 56,
            "downsample_ratio": 0.5,
            "vision_config": {"patch_size": 14},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def test_good_data_passes(meta, capsys):
    assert main(["check", str(meta), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert out == "1 items, 1 intervals (0 reach beyond their video), 0 errors, 0 warnings\n"


def test_every_problem_is_printed_and_errors_fail(meta, capsys):
    write(meta.parent, [line([0, 1]), line([1, 0]), line([0, 3]), line([0, 1, 2])])
    assert main(["check", str(meta), "--workers", "1"]) == 1
    *found, counts = capsys.readouterr().out.splitlines()
    jsonl = meta.parent / "train.jsonl"
    assert [text.split(": ")[:2] for text in found] == [
        [f"{jsonl}:2", "error"],
        [f"{jsonl}:3", "warning"],
        [f"{jsonl}:4", "error"],
    ]
    assert counts == "4 items, 2 intervals (1 reach beyond their video), 2 errors, 1 warnings"


def test_warnings_alone_pass(meta):
    write(meta.parent, [line([0, 3])])
    assert main(["check", str(meta), "--workers", "1"]) == 0


@pytest.mark.parametrize("suffix", [".mkv", ".flv"])
def test_a_video_that_is_cut_short_is_an_error(meta, capsys, suffix):
    """All but a few of its samples would ask for frames that are not there."""
    path = meta.parent / f"a{suffix}"
    with av.open(str(meta.parent / "a.mp4")) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: places[10] + 8])
    write(meta.parent, [line([0, 1]) | {"video": path.name}])
    assert main(["check", str(meta), "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert f"train.jsonl:1: error: {path} is cut short" in out
    assert "of its 16 frames are there" in out


def test_a_name_that_is_no_text_is_printed_all_the_same(meta, monkeypatch):
    path = meta.parent / os.fsdecode(b"caf\xe9.mp4")
    path.write_bytes(b"no video")
    write(meta.parent, [line([0, 1]) | {"video": path.name}])
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["check", str(meta), "--workers", "1"]) == 1
    out.flush()
    assert rb"caf\udce9.mp4" in out.buffer.getvalue()


def test_files_may_stay_closed(meta, capsys):
    (meta.parent / "a.mp4").write_bytes(b"no video")
    assert main(["check", str(meta), "--workers", "1", "--no-open"]) == 0
    assert main(["check", str(meta), "--workers", "1"]) == 1
    assert "a.mp4" in capsys.readouterr().out


def test_lengths_are_those_of_training(meta, checkpoint, capsys):
    arguments = ["check", str(meta), "--workers", "1", "--checkpoint", str(checkpoint)]
    assert main([*arguments, "--num-frames", "2"]) == 0
    # Bytes of each text, and one id for each added token; a frame has 4 visual tokens.
    system = len(f"system\n{ChatTemplate().system_message}\n".encode())
    frame = len(": ") + 1 + 1 + 4 + 1
    user = len("user\n") + 2 * frame + len("\n") + len("\nq\n")
    expected = system + user + len("assistant\n.\n") + 1 + 3 * 2
    assert f"tokens: {expected} |█| {expected}, median {expected}" in capsys.readouterr().out


def test_sequences_that_are_too_long_are_problems(meta, checkpoint, capsys):
    write(meta.parent, [line([0, 1], "<TIME_STAMP> " + "a" * 100)])
    arguments = ["check", str(meta), "--workers", "1", "--checkpoint", str(checkpoint)]
    assert main(arguments) == 0
    total = int(capsys.readouterr().out.split("tokens: ")[1].split()[0])
    assert main([*arguments, "--max-length", str(total - 50)]) == 0
    assert f"warning: 50 of {total} tokens will be cut off the end" in capsys.readouterr().out
    assert main([*arguments, "--max-length", "100"]) == 1
    assert "error: max_length 100 cuts into the frames" in capsys.readouterr().out


def test_a_bad_checkpoint_is_an_error(meta, checkpoint, capsys):
    arguments = ["check", str(meta), "--checkpoint"]
    assert main([*arguments, str(meta.parent / "nowhere")]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    (checkpoint / "config.json").unlink()
    assert main([*arguments, str(checkpoint)]) == 1
    assert "has neither" in capsys.readouterr().err


def test_an_image_counts_with_its_tiles(meta, checkpoint, capsys):
    Image.new("RGB", (112, 56)).save(meta.parent / "wide.png")
    turns = line([0, 1])["conversations"]
    question, answer = (turn["value"] for turn in turns)
    turns[0]["value"] = question.replace("<video>", "<image>")
    turns[1]["value"] = answer.replace("<TIME_STAMP>", "then")
    arguments = ["check", str(meta), "--workers", "1", "--checkpoint", str(checkpoint)]
    lengths = []
    for tiles in (1, 2):
        write(meta.parent, [{"image": "wide.png", "conversations": turns}])
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps(config | {"max_dynamic_patch": tiles}))
        assert main(arguments) == 0
        lengths.append(int(capsys.readouterr().out.split("tokens: ")[1].split()[0]))
    # Two tiles and the thumbnail instead of one, of (56 / 14 / 2)^2 tokens each.
    assert lengths[1] - lengths[0] == 2 * 4


def test_processes_find_the_same_problems_in_order(meta, checkpoint, capsys):
    write(meta.parent, [line(pair) for pair in [[0, 1], [1, 0], [0, 3]] * 100])
    arguments = ["check", str(meta), "--checkpoint", str(checkpoint), "--workers"]
    assert main([*arguments, "1"]) == 1
    alone = capsys.readouterr().out
    program = "import sys; from distime.cli import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments, "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, alone), result.stderr
    assert "300 items, 200 intervals (100 reach beyond their video), 100 errors" in alone


def test_histogram():
    assert histogram([5]) == "tokens: 5 |█| 5, median 5, 95 % up to 5"
    assert histogram([1, 1, 1, 1, 2, 4], bins=4).startswith("tokens: 1 |█▂ ▂| 4, median 1")
