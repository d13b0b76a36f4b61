"""What people give instead of the folder of a checkpoint, and what they are told."""

from __future__ import annotations

import socket

import pytest

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.errors import DisTimeError


def archive(folder):
    path = folder / "DisTime-1B.zip"
    path.write_bytes(b"PK")
    return path


def parent(folder):
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    return folder


def one_file(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder / "model.safetensors"


def holding(*names):
    def make(folder):
        for name in names:
            (folder / name).mkdir() if "." not in name else (folder / name).touch()
        return folder

    return make


@pytest.mark.parametrize("loader", [DisTimeForConditionalGeneration, DisTimeProcessor])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (archive, "an archive: unpack it"),
        (parent, "holds checkpoints, but is none: give one of .*a, .*b"),
        (one_file, "is one file of a checkpoint: give its folder"),
        (holding(), "empty folder"),
        (holding("x.zip"), "archive x.zip: unpack it"),
        (holding("model.safetensors"), "has weights, but no config.json"),
        (holding("model.gguf"), "GGUF"),
        (holding("global_step4", "latest.txt"), "DeepSpeed.*--resume auto"),
        (holding("model.safetensors.incomplete"), "unfinished download"),
        (holding("photo.jpg"), "no config.json"),
    ],
)
def test_each_says_what_to_give_instead(tmp_path, monkeypatch, loader, make, message):
    def no_network(*_):
        raise AssertionError("asks the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(DisTimeError, match=message):
        loader.from_pretrained(make(tmp_path))
