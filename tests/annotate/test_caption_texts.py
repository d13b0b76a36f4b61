"""What captioning models write, read; and captions that say the same, merged."""

import pytest

from distime.annotate.annotator import UnusableError
from distime.annotate.caption_texts import PROMPT, read_captions, read_prompt
from distime.annotate.duplicates import merge
from distime.annotate.records import Caption, Location
from distime.benchmarks.base import SettingsError

TWO = ["A man opens the door.", "He walks away."]


@pytest.mark.parametrize(
    "answer",
    [
        "A man opens the door.\nHe walks away.",
        "\n 1. A man opens the door.\n\n 2. He walks away.\n",
        "- A man opens the door.\r\n- He walks away.",
        "* **A man opens the door.**\n* **He walks away.**",
        "Here are the events:\n1) A man opens the door.\n2) He walks away.",
        "Event 1: A man opens the door.\nEvent 2: He walks away.",
        '["A man opens the door.", "He walks away."]',
        '```json\n[{"event": "A man opens the door."}, {"event": "He walks away."}]\n```',
        '{"events": [{"text": "A man opens the door."}, {"caption": "He walks away."}]}',
        "<think>Let me see.\nA dog barks.</think>A man opens the door.\nHe walks away.",
        "```\nA man opens the door.\nHe walks away.\n```",
    ],
)
def test_an_answer_is_read(answer):
    captions, notes = read_captions(answer)
    assert [one.text for one in captions] == TWO
    assert notes == []


@pytest.mark.parametrize("words", ["一只狗在叫。", "собака лает", "犬が吠えている"])
def test_captions_of_other_scripts(words):
    assert read_captions(f"1. {words}\n")[0] == [Caption(words)]


def test_words_that_look_like_an_introduction_are_kept_alone():
    assert read_captions("Sure enough, the dog jumps.")[0] == [
        Caption("Sure enough, the dog jumps.")
    ]


@pytest.mark.parametrize(
    "garbage",
    ["!!!!", "12 34", "<|im_start|> a man", "word", "so " * 61, "{", "[]", '{"events": []}'],
)
def test_garbage_alone_is_an_error_that_quotes_it(garbage):
    with pytest.raises(UnusableError, match="no caption"):
        read_captions(garbage)


def test_garbage_among_captions_is_counted_and_named():
    captions, (note,) = read_captions("A man opens the door.\n!!!!\n<|pad|> a b\nHe walks away.")
    assert [one.text for one in captions] == TWO
    assert "2 of 4" in note and "!!!!" in note


def test_a_prompt_of_ones_own(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("List {events} events of {seconds} s as {{}}.")
    assert read_prompt(path).format(events=3, seconds=9) == "List 3 events of 9 s as {}."
    assert read_prompt(None) == PROMPT
    for wrong in ("{event}", "{0}", "{", "{events.x.y"):
        path.write_text(wrong)
        with pytest.raises(SettingsError, match=r"prompt\.txt.*\{frames\}, \{seconds\}"):
            read_prompt(path)


def test_captions_that_say_the_same_are_one_event():
    said = [
        ("x", Caption("The man opens a door.")),
        ("x", Caption("A dog barks.", Location(1.0, 2.0))),
        ("y", Caption("the man opens  a door", Location(3.0, 4.0))),
        ("y", Caption("The man opens a red door.")),
        ("y", Caption("A dog barks.", Location(5.0, 6.0))),
    ]
    door, dog = merge("a.mp4", said, 0.8)
    assert door.text == "The man opens a door." and door.sources == ("x", "y")
    assert door.merged == ("the man opens  a door", "The man opens a red door.")
    assert door.locations == {"y": Location(3.0, 4.0)}
    assert dog.locations == {"x": Location(1.0, 2.0), "y": Location(5.0, 6.0)}
    assert door.id != dog.id
    # Five of six words are shared: with a higher threshold these are two events.
    assert len(merge("a.mp4", said, 0.9)) == 3
    assert len(merge("a.mp4", said, 1.0)) == 3


def test_ids_change_with_the_video_and_its_events():
    said = [("x", Caption("A dog barks."))]
    (one,), (same,) = merge("a.mp4", said, 0.8), merge("a.mp4", said, 0.8)
    (other,) = merge("b.mp4", said, 0.8)
    more, _ = merge("a.mp4", [*said, ("x", Caption("A cat sleeps."))], 0.8)
    assert one.id == same.id
    assert len({one.id, other.id, more.id}) == 3


def test_wordless_scripts_are_compared_too():
    assert len(merge("a", [("x", Caption("一只狗在叫")), ("x", Caption("一只猫在睡"))], 0.8)) == 2
