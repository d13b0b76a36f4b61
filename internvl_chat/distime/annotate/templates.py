"""Dialogue templates: a text file of questions and answers with fields, which a user may replace.

The file's form is explained by the built-in one, `templates.txt` beside this module.
"""

from __future__ import annotations

import difflib
import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distime.backbones.template import IMAGE_TAG, VIDEO_TAG
from distime.errors import DisTimeError
from distime.files import read_text
from distime.model.tokens import IM_END, IM_START, SPECIAL_TOKENS, TIME_STAMP

BUILT_IN = Path(__file__).with_name("templates.txt")
KINDS = ("retrieval", "description", "dense", "conversation")
WORDS, TIME = ("event", "phrase"), "time"
RESERVED = (VIDEO_TAG, IMAGE_TAG, IM_START, IM_END, *SPECIAL_TOKENS)
"""What neither templates nor words may say: the processor would read it as something else."""


class TemplateError(DisTimeError):
    """A template cannot be used; the message names file and line, and the mend."""


@dataclass(frozen=True)
class Template:
    """A question and its answer, with fields."""

    question: str
    answer: str

    def fill(self, words: str) -> tuple[str, str]:
        """Return question and answer about an event in these words; times are `<TIME_STAMP>`."""
        phrase = words.rstrip().removesuffix(".")
        fields = {"event": words, "phrase": phrase, TIME: TIME_STAMP}
        return self.question.format(**fields), self.answer.format(**fields)


@dataclass(frozen=True)
class Templates:
    """The templates of a file by kind; a kind that has none is not made."""

    of_kind: dict[str, tuple[Template, ...]]

    def choose(self, kind: str, *names: str) -> Template:
        """Return the template that an event or a video of these names has: always the same one."""
        some = self.of_kind[kind]
        digest = hashlib.sha256("\n".join((kind, *names)).encode(errors="replace")).digest()
        return some[int.from_bytes(digest[:8], "big") % len(some)]


def read_templates(path: Path = BUILT_IN) -> Templates:
    """Read a file of templates.

    Raises:
        TemplateError: a line of it cannot be used.
        FileError: it cannot be read.
    """
    found: dict[str, list[Template]] = {}
    kind = question = None
    asked = 0  # line of the question that waits for its answer
    for number, line in enumerate(read_text(path, "file of templates").split("\n"), 1):
        line, place = line.removeprefix("\ufeff").strip(), f"{path}:{number}"
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") or line[:2] not in ("Q:", "A:") or kind is None:
            if question is not None:
                raise TemplateError(f"{path}:{asked}: a question without an answer: write A: below")
            kind = _section(line, place, found)
            found[kind] = []
        elif line.startswith("Q:"):
            if question is not None:
                raise TemplateError(f"{path}:{asked}: a question without an answer: write A: below")
            question, asked = _text(line, place), number
            fields_of(question, place)
        elif question is None:
            raise TemplateError(f"{place}: an answer without a question: write Q: above it")
        else:
            answer = _text(line, place)
            _check(kind, fields_of(question, f"{path}:{asked}"), fields_of(answer, place), place)
            found[kind].append(Template(question, answer))
            question = None
    if question is not None:
        raise TemplateError(f"{path}:{asked}: a question without an answer: write A: below")
    empty = [name for name, some in found.items() if not some]
    if empty or not found:
        what = f"[{empty[0]}] has" if empty else "it has"
        raise TemplateError(f"{path}: {what} no templates: write Q: and A: below [{KINDS[0]}]")
    return Templates({name: tuple(some) for name, some in found.items()})


def _section(line: str, place: str, found: dict[str, list[Template]]) -> str:
    kinds = ", ".join(f"[{kind}]" for kind in KINDS)
    if not (line.startswith("[") and line.endswith("]")):
        raise TemplateError(f"{place}: {line[:60]!r}: lines begin with Q:, A: or #, below {kinds}")
    name = line[1:-1].strip()
    if name not in KINDS:
        raise TemplateError(f"{place}: no kind of dialogue [{name}]: write one of {kinds}")
    if name in found:
        raise TemplateError(f"{place}: [{name}] is there twice: bring its templates together")
    return name


def _text(line: str, place: str) -> str:
    text = line[2:].strip()
    if not text:
        raise TemplateError(f"{place}: nothing behind {line[:2]}: write what is said")
    for token in RESERVED:
        if token in text:
            mend = "write {time}" if token == TIME_STAMP else "remove it"
            raise TemplateError(f"{place}: {token} is written by this program: {mend}")
    return text


def fields_of(text: str, place: str) -> list[str]:
    """Return the fields of a text, in order.

    Raises:
        TemplateError: one is unknown, or a brace is alone.
    """
    known = ", ".join(f"{{{name}}}" for name in (*WORDS, TIME))
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(f"{place}: {error}: write {{{{ or }}}} for a brace") from None
    fields = []
    for _, name, form, conversion in pieces:
        if name is None:
            continue
        if name not in (*WORDS, TIME):
            close = difflib.get_close_matches(name, (*WORDS, TIME), 1)
            hint = f"did you mean {{{close[0]}}}?" if close else f"there are {known}"
            raise TemplateError(f"{place}: unknown field {{{name}}}: {hint}")
        if form or conversion:
            raise TemplateError(f"{place}: {{{name}}} takes no format: write {{{name}}}")
        fields.append(name)
    return fields


def _check(kind: str, asked: Sequence[str], said: Sequence[str], place: str) -> None:
    """Refuse a template that would give away its answer, or whose answer says nothing."""
    words, times = ([n in WORDS for n in (*asked, *said)], [*asked, *said].count(TIME))
    if sum(words) != 1 or times != 1:
        raise TemplateError(
            f"{place}: a template has {{time}} once and {{event}} or {{phrase}} once, question and "
            f"answer together; this one has {times} and {sum(words)}"
        )
    if kind == "dense":
        if asked:
            raise TemplateError(f"{place}: a question of [dense] has no field: it asks for all")
    elif not asked or not said:
        raise TemplateError(f"{place}: one of the two fields belongs in Q:, the other in A:")
    elif kind != "conversation" and (TIME in asked) != (kind == "description"):
        right = "{time} in Q: and the words in A:"
        if kind == "retrieval":
            right = "the words in Q: and {time} in A:"
        raise TemplateError(f"{place}: a template of [{kind}] has {right}")
