"""`distime tiny`."""

from __future__ import annotations

import pytest

from distime import DisTime
from distime.backbones import BACKBONES
from distime.cli import main


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_tiny_model_of_every_backbone(backbone, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("When does it happen?")
    arguments = ["tiny", backbone, str(tmp_path / "out"), "--words", str(tmp_path / "words.txt")]
    assert main(arguments) == 0
    assert "a tiny " + backbone in capsys.readouterr().out
    model = DisTime.from_pretrained(tmp_path / "out", device="cpu")
    assert model.model.num_parameters() > 10_000
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) < 1_000_000
    assert main(arguments) == 1
    assert "not an empty folder" in capsys.readouterr().err


def test_an_unknown_backbone_is_named(tmp_path, capsys):
    assert main(["tiny", "gpt", str(tmp_path / "out")]) == 1
    assert "gpt: no such backbone; there are internvl" in capsys.readouterr().err
