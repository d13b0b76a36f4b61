"""Which option an answer to a multiple-choice question names.

Models answer in many forms: ``B``, ``(B) Runs.``, ``The answer is B because ...``, a whole
derivation with the option in its last line, or the option's own words. `FORMS` lists those that
are read, the most explicit first, each with where it was met. The first form that is found
decides; where it names two options, or none is found, the answer is unread, which callers count
and treat as wrong. A letter inside a sentence is no option: "A person is running" names none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

LETTERS = "ABCDEFGHIJ"


class Options(NamedTuple):
    """The options of a question: what each is called, and its words where they are known."""

    labels: Sequence[str] = LETTERS
    texts: Sequence[str] = ()


UNKNOWN = Options()
"""Options of which nothing is known: letters from A."""


class Form(NamedTuple):
    """A way to name an option.

    Attributes:
        name: in few words.
        source: who asks for it or answers so.
        pattern: regular expression, without regard to case; `{L}` stands for the option's label,
            `{F}` for words that may stand before it.
        weak: whether the words around are so common that a bare digit or small letter is none.
    """

    name: str
    source: str
    pattern: str
    weak: bool = False


FORMS = (
    Form(
        "final answer",
        "chain-of-thought prompts: 'Final Answer: B'",
        r"final\s+answer\b[^.\n]{0,40}?(?:\bis\b|[:=])\s*{F}{L}",
    ),
    Form("boxed", r"models trained on mathematics: \boxed{B}", r"\\boxed\s*\{{\W*(?:text\W*)?{L}"),
    Form(
        "the answer is",
        "NExT-GQA's published pattern 'The answer is (2)'; the prefixes that Video-MME's scorer "
        "removes ('The best answer is', 'Answer:'); JSON with a span beside '\"answer\": \"B\"'",
        r"\b(?:answer|prediction|option|choice)\b(?:(?!\b(?:could|might|may|can)\b)[^.\n]){{0,60}}?"
        r"(?:\bis\b|\bbe\b|[:=])\s*{F}{L}",
    ),
    Form(
        "答案",
        "answers of Chinese language models: 答案是B, 选B",
        r"(?:答案|选择?|选项)(?:[是为:]|\s)*{L}",
    ),
    Form(
        "is correct",
        "explanations of chat models: 'B is correct'",
        r"{L}(?:\s*(?:选项)?是?(?:正确|对)|[^\w\n]*\s(?:is|must\s+be|would\s+be|should\s+be|seems|"
        r"appears)\s+(?:to\s+be\s+)?(?:(?:the|most|clearly|likely|probably|indeed)\s+)*"
        r"(?:correct|right|best|answer|true|accurate|appropriate)\b)",
    ),
    Form(
        "I choose",
        "chat models: 'I would choose B', 'going with (C)'",
        r"\b(?:choos\w+|chose|pick\w*|select\w*|go(?:ing)?\s+(?:with|for)|opt\s+for|settle\s+on|"
        r"guess|say)\s+{F}{L}",
    ),
    Form("not that but", "explanations: 'not A but B'", r"\bbut\s+(?:rather\s+)?{F}{L}", True),
    Form(
        "a line of its own",
        "prompts such as 'Answer with the option’s letter from the given choices directly'",
        r"^\W*{L}\W*$",
    ),
    Form(
        "the answer begins with it",
        "prompts such as 'Only give the best option', answered '(B) Runs.'; E.T. Bench's "
        "'Best Option: (' continued 'B) Runs.'",
        r"^[\s\W]*?(?:(?:option|choice)\s+)?{L}",
    ),
    Form(
        "it is",
        "chat models: 'I think it's C'",
        r"\b(?:it|that|this)(?:['’]s|\s+is|\s+(?:must|should|would|could|has\s+to)\s+be)\s+{F}{L}",
        True,
    ),
    Form(
        "therefore", "derivations: 'So B.'", r"\b(?:therefore|thus|hence|so)\b[,:]?\s+{F}{L}", True
    ),
    Form("option B", "chat models: 'Option B shows this'", r"\b(?:option|choice)\s+{L}"),
    Form(
        "in brackets",
        "NExT-GQA's published pattern '(2)' anywhere; MMMU's scorer",
        r"(?=[(\[]){L}",
    ),
)
"""Every form that is read, the most explicit first."""

OWN_WORDS = "the option's own words"
"""Name of the form that no pattern describes: MMMU's scorer looks for the option's text last."""

_FILLER = (
    r"(?:(?:the|an?|option|choice|letter|number|answer|most|likely|probably|clearly|simply|"
    r"indeed|therefore|not|with|for|is|be|it|that)\s|[:#\s\"'(\[]){{0,12}}?"
)
_NOT_BEFORE = re.compile(
    r"(?:\bnot|n['’]t|\bcannot\s+be|\bnever|\bneither|\bnor|\bexclud\w*|\brul\w+\s+out|"
    r"\beliminat\w+|\breject\w*|\brather\s+than|\binstead\s+of|\bexcept|\bother\s+than|不是|不选|非)"
    r"\s*(?:(?:be|the|an?|option|choice|answer|either)\s+)*\W*$",
    re.IGNORECASE,
)
_NOT_AFTER = re.compile(
    r"^[)\]\s\"'.:]*(?:(?:is|are|can|does|do|was|would|could)\s*(?:n['’]t|not)\b|"
    r"(?:is|are|was|seems?|looks?)\s+(?:\w+\s+)?(?:wrong|incorrect|false|unlikely|excluded|"
    r"eliminated|out)\b|[-–(:\s]*(?:wrong|incorrect)\b|不正确|不对|错)",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"\s*(?:$|[^\w\s]|\n|(?:because|since|as|but|which)\b|是|选|正|对|(?:is|seems|must|would)\s+"
    r"(?:the\s+|most\s+|clearly\s+)*(?:correct|right|best|answer|true)\b)",
    re.IGNORECASE,
)
_NEAR = 60  # characters around a label that may deny it
_DECIMAL = re.compile(r"[.,:]\d|\.\w\.|%")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)|^.*</think(?:ing)?>", re.S | re.I)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.S | re.I)


def read_choice(text: str, options: Options = UNKNOWN) -> int | None:
    """Return the place of the option that an answer names, counted from 0; None where it is unread.

    Args:
        text: the whole answer.
        options: what they are called and, where known, their words.
    """
    return read_with_form(text, options)[0]


def read_with_form(text: str, options: Options = UNKNOWN) -> tuple[int | None, str]:
    """As `read_choice`, with the name of the form that was found ('' where none was)."""
    text = _plain(text)
    labels = [label.casefold() for label in options.labels]
    words = [_words(option) for option in options.texts]
    said = _words(text)
    if said not in labels and words.count(said) == 1 and said:
        return words.index(said), OWN_WORDS
    for form, pattern in _patterns(tuple(options.labels)):
        found = {
            label.casefold()
            for match in pattern.finditer(text)
            for label in _named(match, text, form, options)
        }
        if found:
            return (labels.index(found.pop()) if len(found) == 1 else None), form.name
    place = _own_words(text, words)
    return place, "" if place is None else OWN_WORDS


def options_in(question: str) -> Options:
    """Return the options that a question lists, one a line: ``(A) Yes.``, ``A. Yes.``."""
    lines = re.findall(r"^\s*(?:\(([A-Z]|\d)\)|([A-Z])[.:)])\s*(.*)$", question, re.MULTILINE)
    labels = [bracketed or bare for bracketed, bare, _ in lines]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        return UNKNOWN
    return Options(labels, [words for *_, words in lines])


def _plain(text: str) -> str:
    """Without thoughts, tags, Markdown and full-width signs; of tagged answers the last."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"<\|[^|>]*\|>|</?s>", " ", _THOUGHT.sub(" ", text))
    if tagged := _TAGGED.findall(text):
        text = tagged[-1]
    text = re.sub(r"</?\w+>", " ", text)
    text = re.sub(r"[*`#~$]+|(?<!\w)_+|_+(?!\w)", "", text)
    # Long runs of blanks and signs say nothing and cost time.
    text = re.sub(r"[^\w\s]{6,}", lambda run: run[0][:6], text)
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))


@lru_cache(maxsize=64)
def _patterns(labels: tuple[str, ...]) -> list[tuple[Form, re.Pattern]]:
    one = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    # A bare label is no part of a longer word; Chinese characters may stand beside it.
    label = (
        rf"(?:[(\[{{<\"'“‘]\s*(?P<closed>{one})\s*[)\]}}>\"'”’]|[(\[{{\"'“‘]{{0,3}}"
        rf"(?<![A-Za-z0-9À-ɏ'’.-])(?P<bare>{one})(?![A-Za-z0-9À-ɏ'’]|-\w))"
    )
    return [
        (
            form,
            re.compile(
                form.pattern.replace("{L}", label)
                .replace("{F}", _FILLER)
                .replace("{{", "{")
                .replace("}}", "}"),
                re.IGNORECASE | re.MULTILINE,
            ),
        )
        for form in FORMS
    ]


def _named(match: re.Match, text: str, form: Form, options: Options) -> Iterator[str]:
    """The labels that a match names: none if it is denied or part of a sentence, or several."""
    closed, bare = match["closed"], match["bare"]
    start, end = match.span("closed" if closed else "bare")
    if _NOT_BEFORE.search(text[max(0, start - _NEAR) : start]) or _NOT_AFTER.match(
        text[end : end + _NEAR]
    ):
        return
    if bare and not _stands_alone(bare, text, end, form, options):
        return
    yield closed or bare
    one = "|".join(map(re.escape, options.labels))
    more = re.match(
        rf"[)\]\"'.]*\s*(?:,|/|&|\+|and|or)+\s*(?:or\s+|and\s+)?[(\[\"']*({one})(?=$|\W)(?!\s+\w)",
        text[end : end + _NEAR],
        re.IGNORECASE,
    )
    if more and not _NOT_BEFORE.search(more.string[: more.start(1)]):
        yield more[1]


def _stands_alone(label: str, text: str, end: int, form: Form, options: Options) -> bool:
    """Whether a label without brackets is one, and not an article, a pronoun or a number."""
    rest = text[end:]
    if _DECIMAL.match(rest):
        return False
    if form.weak and not label.isupper():
        return False
    if _GOES_ON.match(rest):
        return True
    place = [one.casefold() for one in options.labels].index(label.casefold())
    if place < len(options.texts):
        words = _words(options.texts[place])
        near = rest[: 2 * len(options.texts[place]) + _NEAR]
        if words and f"{_words(near)} ".startswith(f"{words} "):
            return True
    return label.isupper() and label not in "AI"


def _words(text: str) -> str:
    """Words alone, in lower case, one blank between them."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", text))


def _own_words(text: str, words: Sequence[str]) -> int | None:
    """The one option whose words stand in the answer, not denied; longer ones hide shorter ones."""
    said = f" {_words(text)} "
    places = []
    for place, option in enumerate(words):
        # "no" and "yes" stand in many sentences: they count only before the first comma or stop.
        short = len(option) < 4 and not option.isdigit()
        begins = re.match(rf"\W*{re.escape(option)}\s*(?:[^\w\s]|\n|$)", text, re.IGNORECASE)
        if option and (begins if short else f" {option} " in said):
            places.append(place)
    longest = [
        place
        for place in places
        if not any(
            f" {words[place]} " in f" {words[other]} " and words[place] != words[other]
            for other in places
        )
    ]
    if len(longest) != 1:
        return None
    option = words[longest[0]]
    before = said[: said.index(f" {option} ")]
    denied = re.search(r"\b(?:not|never|no|n t|cannot|didn t|isn t|doesn t)(?: \w+)?$", before)
    return None if denied else longest[0]
