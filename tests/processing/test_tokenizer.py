import json
import pickle
import re
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distime.model.tokens import NEW_TOKENS, SPECIAL_TOKENS
from distime.processing.tokenizer import (
    TokenIds,
    TokenizerError,
    add_special_tokens,
    encode,
    load_tokenizer,
    start_ids,
)
from tiny_tokenizers import (
    CHAT_TOKENS,
    IMAGE_TOKENS,
    write_internlm2,
    write_json,
    write_qwen2,
    write_word_level,
)

pytestmark = pytest.mark.smoke
WRITERS = {"internlm2": write_internlm2, "qwen2": write_qwen2, "words": write_word_level}
TEXT = "<|im_start|>user\nWhen does <TIME_STAMP> occur?<img></img> The  door.<|im_end|>\n"


@pytest.fixture(params=WRITERS)
def folder(request, tmp_path):
    WRITERS[request.param](tmp_path / "published")
    return tmp_path / "published"


# ------------------------------------------------------------------- sentencepiece (InternLM2)

SPACINGS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.fixture(scope="module", params=SPACINGS, ids=str)
def internlm2(request, tmp_path_factory):
    dummy_prefix, extra = request.param
    path = tmp_path_factory.mktemp("internlm2")
    model = write_internlm2(path, add_dummy_prefix=dummy_prefix, remove_extra_whitespaces=extra)
    tokenizer = load_tokenizer(path)
    add_special_tokens(tokenizer)
    return tokenizer, model, not extra


def published_ids(model, added, text):
    """The published slow tokenizer: added tokens out first, sentencepiece on each piece between."""
    longest_first = sorted(added, key=len, reverse=True)
    ids = [1]
    for piece in re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text):
        if piece in added:
            ids.append(added[piece])
        elif piece:
            ids += [model.piece_to_id(token) for token in model.encode(piece, out_type=str)]
    return ids


PIECES = [*CHAT_TOKENS, *IMAGE_TOKENS, *NEW_TOKENS, "<s>", "</s>", " ", "  ", "\n", ".", ", "]
PIECES += ["The event", "occurs at ", "你好", "é", "<TIME", "_STAMP>", "<", "|>", "Ġ", "▁"]


@given(parts=st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_internlm2_ids_and_text_are_those_of_the_slow_tokenizer(internlm2, parts):
    tokenizer, model, keeps_whitespace = internlm2
    text = "".join(parts)
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    ids = tokenizer(text).input_ids
    assert ids == published_ids(model, added, text)
    assert encode(tokenizer, text) == ids[1:]
    # sentencepiece itself cannot tell "▁" from a blank, nor keep NUL.
    if keeps_whitespace and "▁" not in text and "\0" not in text:
        assert tokenizer.decode(ids) == "<s>" + text


def test_internlm2_ids_by_hand(tmp_path):
    model = write_internlm2(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    base = model.get_piece_size()
    assert len(tokenizer) == base + 9  # the chat tokens took the place of pieces
    assert add_special_tokens(tokenizer) == 2
    assert tokenizer.convert_tokens_to_ids(NEW_TOKENS) == [base + 9, base + 10]

    (newline,) = model.encode("\n")
    im_end = model.piece_to_id("[UNUSED_4]")
    assert tokenizer("<|im_end|>\n").input_ids == [1, im_end, newline]
    at = model.encode("at ")
    ids = tokenizer("at <TIME_STAMP>.").input_ids
    assert ids == [1, *at, base + 9, *model.encode(".")]
    assert start_ids(tokenizer) == [1]


def test_internlm2_skips_special_tokens_without_moving_blanks(internlm2):
    tokenizer, _, keeps_whitespace = internlm2
    ids = tokenizer("The event <TIME_STAMP>, <TIME_STAMP> door<|im_end|>").input_ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text == ("The event ,  door" if keeps_whitespace else "The event,door")
    assert tokenizer.convert_tokens_to_string(
        tokenizer.convert_ids_to_tokens(ids)
    ) == tokenizer.decode(ids)


def test_a_choice_against_bos_survives_saving(tmp_path):
    write_internlm2(tmp_path / "a", add_bos_token=False)
    load_tokenizer(tmp_path / "a").save_pretrained(tmp_path / "b")
    for folder in ("a", "b"):
        tokenizer = load_tokenizer(tmp_path / folder)
        assert start_ids(tokenizer) == []
        assert tokenizer("door").input_ids == encode(tokenizer, "door")


def test_code_in_a_checkpoint_never_runs(tmp_path):
    write_internlm2(tmp_path)
    (tmp_path / "tokenization_internlm2.py").write_text("raise SystemExit('code was run')")
    assert load_tokenizer(tmp_path)("door").input_ids[0] == 1


def test_older_internlm2_files_without_added_tokens_decoder(tmp_path):
    write_internlm2(tmp_path)
    expected = load_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    decoder = config.pop("added_tokens_decoder")
    extra = config.pop("additional_special_tokens")
    write_json(tmp_path / "tokenizer_config.json", config)
    write_json(tmp_path / "added_tokens.json", {t["content"]: int(i) for i, t in decoder.items()})
    names = {key: config[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    write_json(tmp_path / "special_tokens_map.json", {**names, "additional_special_tokens": extra})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.get_vocab() == expected.get_vocab()
    assert tokenizer(TEXT).input_ids == expected(TEXT).input_ids


# ---------------------------------------------------------------------------- byte-level BPE


def test_qwen2_ids_by_hand(tmp_path):
    pieces, added = write_qwen2(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    index = {piece: i for i, piece in enumerate(pieces)} | added
    text = ["the", "Ġa", "t", "Ġ", "<img>", "!", "Ċ", "<|im_end|>", "Ċ"]
    assert tokenizer("the at <img>!\n<|im_end|>\n").input_ids == [index[t] for t in text]
    assert start_ids(tokenizer) == []
    assert tokenizer.pad_token == "<|endoftext|>"


# ------------------------------------------------------------------------------ every kind


def test_saved_files_are_enough_and_give_the_same_ids(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    add_special_tokens(tokenizer)
    ids, text = tokenizer(TEXT).input_ids, tokenizer.decode(tokenizer(TEXT).input_ids)
    for target in ("once", "twice"):
        tokenizer.save_pretrained(tmp_path / target)
        shutil.rmtree(folder)
        folder = tmp_path / target
        tokenizer = load_tokenizer(folder)
        assert tokenizer(TEXT).input_ids == ids
        assert tokenizer.decode(ids) == text
        assert add_special_tokens(tokenizer) == 0


def test_new_tokens_follow_in_the_published_order(folder):
    tokenizer = load_tokenizer(folder)
    before = len(tokenizer)
    assert add_special_tokens(tokenizer) == 2
    assert tokenizer.convert_tokens_to_ids(NEW_TOKENS) == [before, before + 1]
    assert add_special_tokens(tokenizer) == 0
    assert len(tokenizer) == before + 2


def test_all_image_and_time_tokens_are_added_where_all_are_missing(tmp_path):
    write_qwen2(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = dict(list(config["added_tokens_decoder"].items())[:3])
    config["additional_special_tokens"] = config["additional_special_tokens"][:2]
    write_json(tmp_path / "tokenizer_config.json", config)
    tokenizer = load_tokenizer(tmp_path)
    before = len(tokenizer)
    assert add_special_tokens(tokenizer) == 11
    assert tokenizer.convert_ids_to_tokens(list(range(before, before + 11))) == SPECIAL_TOKENS


def test_special_tokens_in_user_text_are_the_tokens(folder):
    tokenizer = load_tokenizer(folder)
    add_special_tokens(tokenizer)
    ids = TokenIds.of(tokenizer)
    found = encode(tokenizer, "What occurs at<TIME_STAMP>?<FRAME_TIME_REF>: <|im_start|><|im_end|>")
    assert found.count(ids.time_stamp) == found.count(ids.frame_time_ref) == 1
    assert found[-2:] == [ids.im_start, ids.im_end]


def test_worker_processes_get_the_same_tokenizer(folder):
    tokenizer = load_tokenizer(folder)
    add_special_tokens(tokenizer)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy(TEXT).input_ids == tokenizer(TEXT).input_ids


# ---------------------------------------------------------------------------------- errors


def test_missing_tokens_are_named(folder):
    tokenizer = load_tokenizer(folder)
    with pytest.raises(TokenizerError, match="lacks <TIME_STAMP>, <FRAME_TIME_REF>: .*add_special"):
        TokenIds.of(tokenizer)
    add_special_tokens(tokenizer)
    assert TokenIds.of(tokenizer).pad == tokenizer.pad_token_id
    tokenizer.pad_token = None
    with pytest.raises(TokenizerError, match='no padding token: set "pad_token"'):
        TokenIds.of(tokenizer)


def test_missing_files_are_listed(tmp_path):
    with pytest.raises(TokenizerError, match=r"nowhere is not a folder: .*checkpoint"):
        load_tokenizer(tmp_path / "nowhere")
    write_json(tmp_path / "vocab.json", {})
    message = r"tokenizer\.model .*tokenizer\.json.*vocab\.json with merges\.txt.*found vocab\.json"
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_damaged_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a tokenizer")
    with pytest.raises(TokenizerError, match=f"cannot read the tokenizer in .*{tmp_path.name}"):
        load_tokenizer(tmp_path)


# ---------------------------------------------------------------------------------- golden


@pytest.mark.golden
@pytest.mark.parametrize("variant", ["qwen2", "qwen2_base", "qwen2_lora", "qwen2_lora_merged"])
def test_published_checkpoints(golden_root, variant):
    folder = golden_root / variant / "checkpoint"
    tokenizer = load_tokenizer(folder)
    new = add_special_tokens(tokenizer)
    assert new == (2 if variant == "qwen2_base" else 0)
    published = json.loads((folder / "added_tokens.json").read_text())
    cases = json.loads((golden_root / "qwen2" / "cases.json").read_text())
    assert published.items() <= tokenizer.get_vocab().items()
    assert cases["token_ids"].items() <= tokenizer.get_vocab().items()
    for case in cases["generate"].values():
        assert tokenizer.decode(case["sequence"]).split("<|im_end|>")[0] == case["response"]
