import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import distime.processing.prompt as prompt_module
from distime.benchmarks import find, longvideobench, mvbench, nextgqa
from distime.processing.prompt import (
    IGNORE_INDEX,
    ChatTemplate,
    Media,
    PromptError,
    Turn,
    common_prefix,
    encode_conversation,
    encode_items,
    encode_prompt,
    image_block,
    media_length,
    video_block,
)
from distime.processing.questions import (
    EVENT_CAPTIONING,
    JOIN,
    STEP_CAPTIONING,
    moment_retrieval_question,
)
from distime.processing.tokenizer import TokenIds, add_special_tokens, encode, load_tokenizer
from tiny_tokenizers import write_internlm2, write_qwen2, write_word_level

WRITERS = {"internlm2": write_internlm2, "qwen2": write_qwen2, "words": write_word_level}
TEMPLATE = ChatTemplate("system")
VIDEO = Media(tokens_per_image=2, num_frames=3)
AROUND_MEDIA = st.lists(
    st.sampled_from(["door", " ", "\n", "é", "<img>", "<TIME_STAMP>", "</img>", "  a", "?"])
).map("".join)


@pytest.fixture(scope="module", params=WRITERS)
def tokenizer(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](path)
    tokenizer = load_tokenizer(path)
    add_special_tokens(tokenizer)
    return tokenizer


def conversation(*texts, system=None):
    speakers = ["human", "gpt"] * len(texts)
    turns = [{"from": s, "value": t} for s, t in zip(speakers, texts, strict=False)]
    return turns if system is None else [{"from": "system", "value": system}, *turns]


def supervised(tokenizer, encoded):
    """Text of each run of supervised tokens."""
    runs, last = [], None
    for i, label in enumerate(encoded.labels):
        if label != IGNORE_INDEX:
            assert label == encoded.input_ids[i]
            runs = [*runs, []] if last != i - 1 else runs
            runs[-1].append(label)
            last = i
    return [tokenizer.decode(run) for run in runs]


# -------------------------------------------------------------------------------- questions


def test_questions_word_for_word():
    end = "When does the described content occur in the video? Please return the timestamp in "
    end += "seconds."
    assert moment_retrieval_question("  a {b}. ") == f"Give you a textual query: 'a {{b}}. '. {end}"
    assert nextgqa.time_question(" why?") == f"Give you the textual query: ' why?'. {end}"
    choice = nextgqa.choice_question("why?", ["a", "b "])
    assert choice.endswith(
        "\n\nQuestion1: why?\nOptions:\n(0) a\n(1) b \nOnly give the best option."
    )
    assert mvbench.choice_question("why?", ["a", "b "]).endswith(
        "question.\n\nQuestion: why?\nOptions:\n(A) a\n(B) b\nOnly give the best option."
    )
    assert longvideobench.choice_question("why?", ["a", "b"]) == (
        "Question: why?\nOptions:\nA. a\nB. b\n"
        "Answer with the option\u2019s letter from the given choices directly."
    )
    assert STEP_CAPTIONING.startswith("Identify and localize a series of steps or actions ")
    assert EVENT_CAPTIONING.startswith("Localize a series of activity events in the video, output ")


def test_joins_of_the_published_evaluations():
    published = ["charades", "anet", "qvh", "youcook2_dvc", "anet_dvc", "nextgqa", "mvbench"]
    joins = {name: find(name).join for name in [*published, "longvideobench"]} | JOIN
    with_newline = {name for name, join in joins.items() if join == "\n"}
    assert with_newline == {"train", "nextgqa", "longvideobench"}
    assert set(joins.values()) == {"", "\n"}


# -------------------------------------------------------------------------------- templates


def test_template_and_blocks():
    assert TEMPLATE.prompt("q2", [("q1", "a1")]) == (
        "<|im_start|>system\nsystem<|im_end|>\n<|im_start|>user\nq1<|im_end|>\n"
        "<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert ChatTemplate(None).prompt("q").startswith("<|im_start|>user\nq")
    assert ChatTemplate(**json.loads(json.dumps(dataclasses.asdict(TEMPLATE)))) == TEMPLATE
    image = "<img><IMG_CONTEXT><IMG_CONTEXT></img>"
    assert image_block(2) == image
    assert video_block(2, 2) == f"<FRAME_TIME_REF>: {image}\n<FRAME_TIME_REF>: {image}"


BLOCK = video_block(3, 2)


@pytest.mark.parametrize(
    ("media", "text", "expected"),
    [
        (VIDEO, "<video>\nWhat?", f"{BLOCK}\nWhat?"),
        (VIDEO, "What?", f"{BLOCK}\nWhat?"),
        (VIDEO, "<video>What?", f"{BLOCK}What?"),
        (VIDEO, "<video> What?", f"{BLOCK} What?"),
        (VIDEO, "What?\n<video>", f"What?\n{BLOCK}"),
        (Media(2, image_tiles=(1,)), "What?", f"{image_block(2)}\nWhat?"),
        (
            Media(2, image_tiles=(1, 3)),
            "<image> or <image>?",
            f"{image_block(2)} or {image_block(6)}?",
        ),
        (Media(), "What?", "What?"),
    ],
)
def test_media_tags(media, text, expected):
    assert media.place(text) == expected


def test_join_is_used_without_a_tag_only():
    assert VIDEO.place("What?", join="") == f"{BLOCK}What?"
    assert VIDEO.place("<video>\nWhat?", join="") == f"{BLOCK}\nWhat?"


@pytest.mark.parametrize(
    ("media", "texts", "message"),
    [
        (VIDEO, ["<video> <video>", "a"], "takes one <video> tag and no <image>, found 2 and 0"),
        (VIDEO, ["<video> <image>", "a"], "found 1 and 1: keep one <video>"),
        (Media(), ["<video>\nq", "a"], "<video> in an item without a video: remove the tag"),
        (Media(), ["<image>\nq", "a"], "1 <image> tags for 0 images: write one tag per image"),
        (Media(1, image_tiles=(1, 1)), ["q", "a"], "0 <image> tags for 2 images"),
        (Media(1, image_tiles=(1,)), ["<image><image>", "a"], "2 <image> tags for 1 images"),
        (VIDEO, ["q", "a", "<video>", "a"], "<video> outside the first human turn: move the tag"),
        (VIDEO, ["q", "an <image>"], "<image> outside the first human turn"),
        (VIDEO, ["q <IMG_CONTEXT>", "a"], "7 <IMG_CONTEXT> tokens where the media have 6"),
        (VIDEO, ["q", "<FRAME_TIME_REF>"], "4 <FRAME_TIME_REF> tokens where the media have 3"),
        (VIDEO, ["q"], 'the conversation has no "gpt" turn'),
        (VIDEO, [], 'must begin with a "human" turn'),
    ],
)
def test_conversations_that_cannot_be_encoded(tokenizer, media, texts, message):
    with pytest.raises(PromptError) as error:
        encode_conversation(tokenizer, TEMPLATE, conversation(*texts), media)
    assert message in str(error.value)


def test_unknown_speakers_and_mixed_media_are_refused(tokenizer):
    with pytest.raises(PromptError, match="unknown speaker 'user': use one of system, human, gpt"):
        encode_conversation(tokenizer, TEMPLATE, [Turn("user", "q"), Turn("gpt", "a")])
    with pytest.raises(PromptError, match="a video or images, not both"):
        Media(1, num_frames=1, image_tiles=(1,))


# ------------------------------------------------------------------------ training sequences


def test_answers_and_their_end_are_supervised(tokenizer):
    turns = conversation("<video>\ndoor?", "The event <TIME_STAMP>.", "When?", "door")
    encoded = encode_conversation(tokenizer, TEMPLATE, turns, VIDEO)
    answers = ["The event <TIME_STAMP>.<|im_end|>", "door<|im_end|>"]
    found = supervised(tokenizer, encoded)
    if tokenizer.is_fast and "Ċ" not in tokenizer.get_vocab():  # words are joined by blanks
        found, answers = ([s.replace(" ", "") for s in texts] for texts in (found, answers))
    assert found == answers
    assert (encoded.num_time_stamps, encoded.num_cut) == (1, 0)
    assert not encoded.is_truncated


def test_each_turn_is_tokenised_on_its_own(tokenizer):
    turns = conversation("<video>\ndoor?", "The event.")
    expected = tokenizer("").input_ids
    for text in (
        "<|im_start|>system\nsystem<|im_end|>\n",
        f"<|im_start|>user\n{BLOCK}\ndoor?<|im_end|>\n",
        "<|im_start|>assistant\nThe event.<|im_end|>\n",
    ):
        expected += encode(tokenizer, text)
    encoded = encode_conversation(tokenizer, TEMPLATE, turns, VIDEO)
    assert encoded.input_ids == expected
    if tokenizer.bos_token_id is not None:
        assert encoded.input_ids.count(tokenizer.bos_token_id) == 1


@given(before=AROUND_MEDIA, after=AROUND_MEDIA, frames=st.integers(1, 4))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_block_tokenised_apart_has_the_ids_of_the_whole_text(tokenizer, before, after, frames):
    media = Media(2, num_frames=frames)
    turns = conversation(f"{before}<video>{after}", "door")
    text = TEMPLATE.turn("human", media.place(turns[0]["value"]))
    ids = encode_conversation(tokenizer, TEMPLATE, turns, media).input_ids
    start = len(tokenizer("").input_ids) + len(encode(tokenizer, TEMPLATE.turn("system", "system")))
    whole = encode(tokenizer, text)
    assert ids[start : start + len(whole)] == whole


def test_frames_are_tokenised_once_for_each_number_of_them(tokenizer, monkeypatch):
    tokenised = []
    monkeypatch.setattr(
        prompt_module,
        "encode",
        lambda tokenizer, text: tokenised.append(text) or encode(tokenizer, text),
    )
    for number in range(5):
        for frames in (7, 8):
            turns = conversation(f"door {number}?", "door")
            encode_conversation(tokenizer, TEMPLATE, turns, Media(2, num_frames=frames))
    assert sum(text.count("<IMG_CONTEXT>") for text in tokenised) == 2 * (7 + 8)


def test_a_system_turn_replaces_the_system_message_with_a_video_too(tokenizer):
    own = encode_conversation(tokenizer, TEMPLATE, conversation("q", "a", system="video"), VIDEO)
    other = encode_conversation(tokenizer, ChatTemplate("video"), conversation("q", "a"), VIDEO)
    assert own == other
    none = encode_conversation(tokenizer, ChatTemplate(None), conversation("q", "a"), VIDEO)
    assert len(none.input_ids) < len(own.input_ids)


def test_a_prompt_is_the_start_of_its_training_sequence(tokenizer):
    turns = conversation("door?", "The event.", "When?", "at noon.")
    encoded = encode_conversation(tokenizer, TEMPLATE, turns, VIDEO)
    first = encode_prompt(tokenizer, TEMPLATE, "door?", VIDEO)
    second = encode_prompt(tokenizer, TEMPLATE, "When?", VIDEO, history=[("door?", "The event.")])
    for prompt in (first, second):
        assert encoded.input_ids[: len(prompt)] == prompt
        assert encoded.labels[len(prompt) - 1] == IGNORE_INDEX != encoded.labels[len(prompt)]


def test_prompts_refuse_tags_in_later_turns(tokenizer):
    with pytest.raises(PromptError, match="<video> outside the first human turn"):
        encode_prompt(tokenizer, TEMPLATE, "<video>", VIDEO, history=[("q", "a")])


# ----------------------------------------------------------------------------------- cutting


def test_every_cut_keeps_frames_and_something_supervised_or_is_an_error(tokenizer):
    turns = conversation("<TIME_STAMP>?", "<TIME_STAMP>, door <TIME_STAMP>.", "When?", "door")
    whole = encode_conversation(tokenizer, TEMPLATE, turns, VIDEO)
    tokens = TokenIds.of(tokenizer)
    media_end = media_length(tokenizer, whole.input_ids)
    first = next(i for i, label in enumerate(whole.labels) if label != IGNORE_INDEX)
    assert whole.input_ids[media_end - 1] == tokens.img_context
    for length in range(len(whole.input_ids) + 2):
        if length <= first:
            reason = "cuts into the frames" if length < media_end else "leaves nothing supervised"
            with pytest.raises(
                PromptError, match=f"max_length {length} {reason}.*raise max_length"
            ):
                encode_conversation(tokenizer, TEMPLATE, turns, VIDEO, max_length=length)
            continue
        cut = encode_conversation(tokenizer, TEMPLATE, turns, VIDEO, max_length=length)
        assert cut.input_ids == whole.input_ids[:length]
        assert cut.labels == whole.labels[:length]
        assert cut.num_cut == max(0, len(whole.input_ids) - length)
        assert cut.num_time_stamps == cut.input_ids.count(tokens.time_stamp)
    assert whole.num_time_stamps == 3


# ------------------------------------------------------------------------------ shared prefix

ITEMS = [
    conversation("<video>\nWhen does the event occur?", "The event <TIME_STAMP>."),
    conversation("<video>\nWhen does the door occur?", "at noon.", "When?", "at <TIME_STAMP>."),
    conversation("<video>\nclean the bananas", "<TIME_STAMP>, door. <TIME_STAMP>, skin."),
]


def test_prefix_and_suffix_are_the_item_alone(tokenizer):
    tokens = TokenIds.of(tokenizer)
    same_question = [conversation("door?", answer) for answer in ("at noon.", "at skin.")]
    for items in (ITEMS, ITEMS[:2], ITEMS[:1], [ITEMS[0], ITEMS[0]], same_question):
        prefix, suffixes = encode_items(tokenizer, TEMPLATE, VIDEO, items)
        assert tokens.time_stamp not in prefix
        assert prefix.count(tokens.img_context) == VIDEO.num_image_tokens
        assert prefix.count(tokens.frame_time_ref) == VIDEO.num_frames
        for item, suffix in zip(items, suffixes, strict=True):
            alone = encode_conversation(tokenizer, TEMPLATE, item, VIDEO)
            assert prefix + suffix.input_ids == alone.input_ids
            assert [IGNORE_INDEX] * len(prefix) + suffix.labels == alone.labels
            assert suffix.labels[0] == IGNORE_INDEX
            assert suffix.num_time_stamps == alone.num_time_stamps
    shared_by_two, _ = encode_items(tokenizer, TEMPLATE, VIDEO, ITEMS[:2])
    shared_by_three, _ = encode_items(tokenizer, TEMPLATE, VIDEO, ITEMS)
    assert len(shared_by_two) > len(shared_by_three)


def test_a_time_in_the_question_is_never_shared(tokenizer):
    items = [conversation("What at <TIME_STAMP>?", answer) for answer in ("door", "skin")]
    prefix, suffixes = encode_items(tokenizer, TEMPLATE, VIDEO, items)
    time_stamp = TokenIds.of(tokenizer).time_stamp
    assert [s.input_ids.count(time_stamp) for s in suffixes] == [1, 1]
    assert suffixes[0].input_ids[0] == time_stamp
    assert time_stamp not in prefix


def test_items_cut_to_a_length_are_the_cut_items(tokenizer):
    whole = encode_conversation(tokenizer, TEMPLATE, ITEMS[2], VIDEO)
    length = len(whole.input_ids) - 4
    prefix, suffixes = encode_items(tokenizer, TEMPLATE, VIDEO, ITEMS[2:], max_length=length)
    alone = encode_conversation(tokenizer, TEMPLATE, ITEMS[2], VIDEO, max_length=length)
    assert prefix + suffixes[0].input_ids == alone.input_ids
    assert suffixes[0].num_cut == alone.num_cut > 0


def test_items_that_differ_before_the_frames_are_refused(tokenizer):
    other = conversation("<video>\nWhen?", "door", system="video")
    with pytest.raises(PromptError, match="same system message, the same words before <video>"):
        encode_items(tokenizer, TEMPLATE, VIDEO, [ITEMS[0], other])
    early = [conversation("<TIME_STAMP> <video>", "door")] * 2
    with pytest.raises(PromptError, match="no <TIME_STAMP> there"):
        encode_items(tokenizer, TEMPLATE, VIDEO, early)
    with pytest.raises(PromptError, match='item 1: .*no "gpt" turn'):
        encode_items(tokenizer, TEMPLATE, VIDEO, [ITEMS[0], conversation("q")])
    with pytest.raises(PromptError, match="no items"):
        encode_items(tokenizer, TEMPLATE, VIDEO, [])


def test_common_prefix_leaves_every_sequence_a_token():
    assert common_prefix([[1, 2, 3, 4], [1, 2, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2, 5]]) == 1
    assert common_prefix([[1, 2, 3]]) == 2
    assert common_prefix([[1, 2, 3], [7, 2, 3]]) == 0
    assert common_prefix([[1, 2, 3], [1, 2, 4]], min_length=2) == 2
    with pytest.raises(
        PromptError, match="only 2 tokens are shared, but the frames reach to token 3"
    ):
        common_prefix([[1, 2, 3, 4], [1, 2, 5]], min_length=3)


# ------------------------------------------------------------------------------------ golden

VARIANTS = ["qwen2", "qwen2_bf16enc", "qwen2_lora", "qwen2_lora_merged"]


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_training_and_prompt_ids(golden_root, variant):
    folder = golden_root / variant
    tokenizer = load_tokenizer(folder / "checkpoint")
    cases = json.loads((folder / "cases.json").read_text())
    lines = (golden_root / "common" / "train.jsonl").read_text().splitlines()
    items = {item["id"]: item for item in map(json.loads, lines)}
    assert len(cases["forward"]) == 12
    with safe_open(folder / "cases.safetensors", "np") as tensors:
        for name, case in cases["forward"].items():
            media = Media(cases["num_image_token"], num_frames=len(case["frame_times"]) // 2)
            turns = items[name]["conversations"]
            encoded = encode_conversation(tokenizer, ChatTemplate(), turns, media)
            ids = tensors.get_tensor(f"forward/{name}/input_ids")[0]
            assert encoded.input_ids == ids.tolist(), name
            labels = tensors.get_tensor(f"forward/{name}/labels")[0]
            assert encoded.labels == labels.tolist(), name
            assert encoded.num_time_stamps == len(case["time_token_positions"]), name
        for name, case in cases.get("generate", {}).items():
            media = Media(cases["num_image_token"], num_frames=case["frames"])
            join = {"eval": find("charades").join, "train": JOIN["train"]}[case["style"]]
            ids = encode_prompt(tokenizer, ChatTemplate(), case["text"], media, join=join)
            assert ids == tensors.get_tensor(f"generate/{name}/prompt_ids")[0].tolist(), name


@pytest.mark.golden
def test_recorded_prompt_texts(golden_root):
    cases = json.loads((golden_root / "common" / "cases.json").read_text())
    assert ChatTemplate().system_message == cases["conv"]["system_message"]
    assert ChatTemplate().prompt("<image>\nHello?") == cases["prompt_text_one_turn"]
    assert ChatTemplate().prompt("q2", [("q1", "a1")]) == cases["prompt_text_history"]


def released_prompts(golden_root: Path, *names: str) -> list[dict]:
    path = golden_root.parent.joinpath("data", "predictions_1B", *names)
    if not path.is_file():
        pytest.skip(f"no released predictions at {path}")
    return json.loads(path.read_text())


def published_media(question: str) -> str:
    return Media(1, num_frames=16).place(question, "").replace(image_block(1), "<image>")


@pytest.mark.golden
def test_released_longvideobench_prompts(golden_root):
    released = released_prompts(golden_root, "LongVideoBench", "16frame_result.json")
    annotations = golden_root.parent / "data" / "annotations" / "longvideobench" / "lvb_val.json"
    questions = {item["id"]: item for item in json.loads(annotations.read_text())}
    for one in released:
        item = questions[one["task_type"]]
        question = longvideobench.choice_question(item["question"], item["candidates"])
        assert published_media(find("longvideobench").join + question) == one["question"]


@pytest.mark.golden
def test_released_mvbench_prompts(golden_root):
    for one in released_prompts(golden_root, "MVBench", "MVBench.json"):
        text = one["question"].split("Question: ", 1)[1]
        question, options = text.removesuffix("\nOnly give the best option.").split("\nOptions:\n")
        options = [f"{option[4:]}" for option in options.split("\n")]
        assert published_media(mvbench.choice_question(question, options)) == one["question"]
