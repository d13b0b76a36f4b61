"""The words of `--rewards`, and rewards of words."""

from __future__ import annotations

import pytest

from distime.train.chosen_rewards import Scene, read_rewards
from distime.train.rewards import REWARDS, RewardError
from distime.train.text_rewards import TEXT_REWARDS

RIGHT = "Two: <TIME_STAMP>, and <TIME_STAMP>."
SCENE = Scene([(1, 3), (5, 6)], [(1, 3), (5, 7)], 10.0, "two <TIME_STAMP> and <TIME_STAMP>", RIGHT)


def value(word, scene=SCENE):
    (one,) = read_rewards([word])
    return one.value(scene, "file:1")


def test_every_reward_has_a_name_and_a_weight():
    chosen = read_rewards(["tiou", "twass0.5:2", "format:-0.5", "tiou*text_equal:3"])
    assert [one.weight for one in chosen] == [1, 2, -0.5, 3]
    assert [one.needs_words for one in chosen] == [False, False, True, True]
    assert not REWARDS.keys() & TEXT_REWARDS.keys()


def test_values_by_hand():
    assert value("tiou") == pytest.approx(3 / 4)
    assert value("text_equal") == 1
    assert value("tiou*text_equal*cacc") == pytest.approx(3 / 4)
    wrong = Scene([(1, 3)], SCENE.truth, 10.0, "one <TIME_STAMP>", RIGHT)
    assert value("tiou*text_equal", wrong) == 0
    assert value("word_f1", wrong) == 0
    assert value("word_f1", Scene([], [], 1.0, "a red red cube", "the red cube")) == (
        pytest.approx(2 * 2 / 7)
    )


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (SCENE, 1),
        (Scene([(1, 3), (6, 5)], SCENE.truth, 10.0), 0),
        (Scene([], SCENE.truth, 10.0), 0),
        (Scene([(1, 2)], [], 10.0), 0),
        (Scene([], [], 10.0), 1),
        (Scene([(1, 3)], SCENE.truth, 10.0, finished=False), 0),
    ],
)
def test_format_by_hand(scene, expected):
    assert value("format", scene) == expected


def test_a_function_of_a_file_is_given_what_it_names(tmp_path):
    (tmp_path / "my rewards.py").write_text(
        "import numpy as np\n"
        "def late(predicted, *, duration, share=2): return predicted[0][0] / duration * share\n"
        "def numpy(text): return np.float32(len(text))\n"
    )
    assert value(f"{tmp_path}/my rewards.py:late:0.5") == pytest.approx(0.2)
    assert value(f"{tmp_path}/my rewards.py:numpy") == len(SCENE.text)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("tiuo", "did you mean tiou"),
        ("tiou:", "'' is no weight"),
        ("tiou:0", "with a number other than 0"),
        ("tiou:nan", "is no weight"),
        ("mine.py", "say which function of it, as in mine.py:FUNCTION"),
        ("nowhere/mine.py:one", "no such file"),
        ("{file}:two", "it has one, odd"),
        ("{file}:odd", "its parameter verse is nothing that a reward is given"),
        ("{broken}:one", "cannot be imported: SyntaxError"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_mend(tmp_path, word, message):
    (tmp_path / "file.py").write_text("def one(text): return 1\ndef odd(verse): return 1\n")
    (tmp_path / "broken.py").write_text("def one(:\n")
    word = word.format(file=tmp_path / "file.py", broken=tmp_path / "broken.py")
    with pytest.raises(RewardError) as caught:
        read_rewards([word])
    assert message in str(caught.value)
