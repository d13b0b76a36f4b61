from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.metrics.choices import FORMS, Options, options_in, read_choice, read_with_form

LETTERED = Options("ABCD", ["Runs.", "Sits down.", "A person is walking.", "Takes the cup/glass."])
NUMBERED = Options("01234", ["run", "sit", "stand up", "two dogs", "jump"])

NAMES_B = """
B
b
(B)
(b).
B.
B!
**B**
**(B)**
[B]
"B"
'B'
- B
Ｂ
（B）
B。
B<|im_end|>
(B
B)
(B) Sits down.
B. Sits down.
B Sits down.
B: he sits
B - he sits
B, because he sits
B because he sits
B)cat
(B)cat
Option B
option b
Option (B)
Option: B
Option B: he sits down.
Choice B
Answer: B
Answer:B
ANSWER: b
Answer: (B)
Answer：（B）
Answer: **B**
Best Option: (B) Sits down.
The answer is B
The answer is (B) Sits down.
The answer is B because A is not shown.
the correct option is B
The correct answer is: B
The best choice would be B.
So the answer must be B
The answer to the question is option B.
Final Answer: B
First A, then C. Final answer: **B**
<answer>B</answer>
<answer>
(B) Sits down.
</answer>
{"answer": "B"}
{"relevant_span": [3.0, 10.5], "answer": "B"}
{"option": "B", "reason": "because A is wrong"}
\\boxed{B}
$\\boxed{\\text{B}}$
<think>It may be A. The answer is A</think> B
<think>A</think><answer>(B)</answer>
A first, but that is thought.</think> B
B is correct.
(B) is the best choice
B is the correct answer because A is wrong
I think it's B
I think it is B.
I would choose option B.
I'd go with (B)
Therefore, (B).
It is not (A). The answer is (B).
The correct answer is not A but B
The answer isn't A. It's B.
(A) is incorrect. (B) is correct.
A is wrong. B is right.
Option A is wrong; option B fits.
not (A). (B)
答案：B
答案是B
选B
正确答案是（B）
Sits down.
sits down
He sits down.
The answer is: sits down
"""

UNREAD = """

(
.
E
A person is running
A man in black stands there.
a big dog
I
I see a man.
I cannot answer this question.
None of the above
All of the above
no answer
not A
It is not B.
A or B
A and C
A, B
A. or B.
(A) and (B)
Both A and B
Neither A nor B
The answer is B or C
The answer is a man.
The answer is not clear.
C'est la vie
B-roll footage
A.M.
D'Artagnan
The man is at position A
Vitamin C is good
He does not sit.
<think>The answer is B
A. Runs. / B. Sits down. / C. A person is walking.
"""


def lines(text: str) -> list[str]:
    return text.strip("\n").split("\n")


@pytest.mark.parametrize("text", [t for t in lines(NAMES_B) if t[:1] != "<" or ">" in t[1:]])
def test_forms_that_name_an_option(text):
    if text in ("<answer>", "</answer>"):
        return
    assert read_choice(text, LETTERED) == 1
    if "its down" not in text:
        assert read_choice(text) == 1  # also where the options are not known


@pytest.mark.parametrize("text", lines(UNREAD))
def test_what_names_no_option_or_several(text):
    assert read_choice(text.replace(" / ", "\n"), LETTERED) is None


def test_several_lines():
    assert read_choice("Let me think about A.\nB", LETTERED) == 1
    assert read_choice("B\n\nExplanation: A is not shown.", LETTERED) == 1
    assert read_choice("The best answer is:\n(B)", LETTERED) == 1
    assert read_choice('```json\n{"answer": "B"}\n```', LETTERED) == 1
    assert read_choice("<answer>\nB. Sits down.\n</answer>", LETTERED) == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("2", 2),
        ("(2)", 2),
        ("2.", 2),
        ("**2**", 2),
        ("(2) stand up.", 2),
        ("2. stand up", 2),
        ("Answer: 2", 2),
        ("The answer is 2 because he stands up", 2),
        ("It is not (0). The answer is (2).", 2),
        ("Option 2", 2),
        ("stand up", 2),
        ("The man stands up, stand up.", 2),
        ("two dogs", 3),
        ("2 people are running", None),
        ("2.5 seconds", None),
        ("It took 2", None),
        ("12", None),
        ("5", None),
        ("-1", None),
        ("B", None),
        ("1 and 2", None),
        ("(1) or (2)", None),
    ],
)
def test_numbered_options(text, place):
    assert read_choice(text, NUMBERED) == place


def test_own_words_of_options_that_contain_each_other():
    options = Options("ABC", ["left", "left and right", "no"])
    assert read_choice("It moves left and right.", options) == 1
    assert read_choice("It moves left.", options) == 0
    assert read_choice("There is no movement", options) is None
    assert read_choice("No, it does not move.", options) == 2
    assert read_choice("no answer", options) is None
    twice = Options("ABC", ["cat", "cat", "dog"])
    assert read_choice("cat", twice) is None and read_choice("dog", twice) == 2


@pytest.mark.parametrize(
    ("question", "options"),
    [
        (
            "Which?\nOptions:\n(A) Yes.\n(B) No.\nOnly give the best option.",
            ("AB", ["Yes.", "No."]),
        ),
        ("Which?\nOptions:\nA. Yes\nB. No\nAnswer with", ("AB", ["Yes", "No"])),
        ("Which?\n(0) run\n(1) sit\n(2) jump", ("012", ["run", "sit", "jump"])),
        ("Which?", ("ABCDEFGHIJ", [])),
    ],
)
def test_options_are_found_in_questions(question, options):
    found = options_in(question)
    assert ("".join(found.labels), list(found.texts)) == options


def test_every_form_has_a_source_and_is_reachable():
    seen = {read_with_form(text, LETTERED)[1] for text in lines(NAMES_B) + lines(UNREAD)}
    assert {form.name for form in FORMS} <= seen
    assert all(form.source for form in FORMS)


labels = st.sampled_from("ABCD")
frames = st.sampled_from(
    ["{}", "({})", "{}.", "**{}**", "Answer: {}", "the answer is ({})", "<answer>{}</answer>"]
    + ["Option {}", "{}) cat", "I think it's {}.", '{{"answer": "{}"}}', "{} is correct"]
)


@given(labels, frames)
def test_a_label_in_a_frame_is_read(label, frame):
    assert read_choice(frame.format(label)) == "ABCD".index(label)


words = st.lists(
    st.sampled_from(["a", "an", "the", "man", "dog", "runs", "is", "in", "red", "i", "he"]),
    min_size=2,
)


@given(words)
def test_sentences_are_no_options(sentence):
    text = " ".join(sentence).capitalize()
    assert read_choice(text) is None


@given(st.text() | st.text(alphabet="ABCD()[]{}<>/answer is:.,\n\"'*"))
def test_any_text_can_be_read(text):
    assert read_choice(text, LETTERED) in (None, 0, 1, 2, 3)


@pytest.mark.parametrize("piece", ["(", "\n", " ", "the ", "answer ", "it is ", "([{\"'", "A, "])
def test_long_answers_take_no_long_time(piece):
    begun = time.process_time()
    read_choice("answer is " + piece * 5000, LETTERED)
    assert time.process_time() - begun < 2
