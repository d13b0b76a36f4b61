"""Templates of dialogues: the built-in ones, and what a user's file may get wrong."""

import pytest

from distime.annotate.templates import BUILT_IN, KINDS, TemplateError, read_templates
from distime.files import FileError


def test_the_built_in_templates_have_every_kind():
    templates = read_templates()
    assert tuple(templates.of_kind) == KINDS
    assert len(templates.of_kind["conversation"]) == 5  # as many as the published engine has
    first = templates.of_kind["retrieval"][0].fill("he waxes a ski.")
    assert first[0].startswith("Give you a textual query: 'he waxes a ski.'. When does the")
    assert first[1] == "The event is depicted at <TIME_STAMP>."


def test_a_phrase_has_no_full_stop_and_braces_are_written_twice(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("[retrieval]\nQ: {{when}} {phrase}?\nA: {time}\n")
    (template,) = read_templates(path).of_kind["retrieval"]
    assert template.fill("a {door} closes.") == ("{when} a {door} closes?", "<TIME_STAMP>")


def test_the_choice_is_always_the_same_and_spreads():
    templates = read_templates()
    chosen = [templates.choose("retrieval", "a.mp4", str(n)) for n in range(200)]
    assert chosen == [templates.choose("retrieval", "a.mp4", str(n)) for n in range(200)]
    assert set(chosen) == set(templates.of_kind["retrieval"])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            "[retrieval]\nQ: when {evnt}?\nA: {time}",
            2,
            "unknown field {evnt}: did you mean {event}",
        ),
        ("[retrieval]\nQ: {event}\nA: {}", 3, "unknown field {}: there are {event}"),
        ("[retrieval]\nQ: {event}\nA: {time.end}", 3, "unknown field {time.end}"),
        ("[retrieval]\nQ: {event!r}\nA: {time}", 2, "takes no format"),
        ("[retrieval]\nQ: {event\nA: {time}", 2, "write {{ or }} for a brace"),
        ("[retrieval]\nQ: {event}\nA: <TIME_STAMP>", 3, "write {time}"),
        ("[retrieval]\nQ: <video> {event}\nA: {time}", 2, "<video> is written by this program"),
        ("[retrieval]\nQ: at {time}?\nA: {event}", 3, "the words in Q: and {time} in A:"),
        ("[description]\nQ: {event}\nA: {time}", 3, "{time} in Q: and the words in A:"),
        ("[retrieval]\nQ: when?\nA: {time}", 3, "has {time} once and {event} or {phrase} once"),
        ("[retrieval]\nQ: when?\nA: {event} {time}", 3, "belongs in Q:, the other in A:"),
        ("[dense]\nQ: {event}?\nA: {time}", 3, "[dense] has no field"),
        ("[retrieval]\nQ: {event}\n\nQ: {event}\nA: {time}", 2, "a question without an answer"),
        ("[retrieval]\nQ: {event}\n[dense]\nQ: x\nA: {time} {event}", 2, "without an answer"),
        ("[retrieval]\nQ: {event}", 2, "a question without an answer"),
        ("[retrieval]\nA: {time}", 2, "an answer without a question"),
        ("[retrieval]\nQ:\nA: {time}", 2, "nothing behind Q:"),
        ("[search]\nQ: {event}\nA: {time}", 1, "no kind of dialogue [search]: write one of"),
        ("Q: {event}\nA: {time}", 1, "lines begin with Q:, A: or #, below [retrieval]"),
        ("[retrieval]\nQ: {event}\nA: {time}\n[retrieval]", 4, "[retrieval] is there twice"),
    ],
)
def test_mistakes_are_named_with_file_line_and_mend(tmp_path, text, line, said):
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(TemplateError) as raised:
        read_templates(path)
    assert str(raised.value).startswith(f"{path}:{line}: ") and said in str(raised.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[retrieval]\n", "[dense]\n[retrieval]\n"])
def test_a_file_without_templates(tmp_path, text):
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(TemplateError, match="no templates: write Q: and A:"):
        read_templates(path)


def test_no_file(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        read_templates(tmp_path / "mine.txt")


def test_the_built_in_file_is_part_of_the_package():
    assert BUILT_IN.is_file()
