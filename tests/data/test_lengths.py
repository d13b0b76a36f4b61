"""Lengths are those of the sequences, counted without their frames, and kept for later runs."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distime import DisTimeProcessor
from distime.backbones.template import ChatTemplate, Media
from distime.data import lengths as lengths_module
from distime.data.dataset import DataSettings, TrainingData
from distime.data.lengths import KeptLengths, conversation_lengths
from distime.data.schema import TrainingItem
from distime.processing.prompt import Turn, encode_conversation
from distime.processing.tokenizer import add_special_tokens, encode, load_tokenizer, text_lengths
from distime.toy.tiny import write_tiny_checkpoint
from tiny_tokenizers import write_internlm2, write_qwen2, write_word_level


class Reader:
    """What `conversation_lengths` asks of a processor."""

    def __init__(self, tokenizer, system):
        self.tokenizer, self.template = tokenizer, ChatTemplate(system)


@pytest.fixture(scope="module", params=[write_internlm2, write_qwen2, write_word_level])
def tokenizer(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    request.param(path)
    tokenizer = load_tokenizer(path)
    add_special_tokens(tokenizer)
    return tokenizer


WORDS = st.sampled_from(
    ["door", " ", "\n", "  ", "é", "When", "?", "<ref>", "<TIME_STAMP>", "<|im_end|>", "<im", "<<"]
)
TEXT = st.lists(WORDS, max_size=8).map("".join)
MEDIA = {"<video>": Media(3, num_frames=5), "<image>": Media(3, image_tiles=(7,)), "": Media()}


@given(tag=st.sampled_from(list(MEDIA)), texts=st.lists(TEXT, min_size=3, max_size=6),
       system=st.sampled_from([None, "s"]), own=st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_lengths_are_those_of_the_sequences(tokenizer, tag, texts, system, own):
    before, after, *answers = texts
    turns = [Turn("human", before + tag + after)] + [Turn("gpt", f"a{text}") for text in answers]
    turns = [Turn("system", "own")] * own + turns
    processor = Reader(tokenizer, system)
    (length,) = conversation_lengths(processor, [TrainingItem(tuple(turns))], [MEDIA[tag]])
    encoded = encode_conversation(tokenizer, processor.template, turns, MEDIA[tag])
    assert length == len(encoded.input_ids)


@given(texts=st.lists(TEXT, max_size=4))
@settings(max_examples=60, deadline=None)
def test_many_texts_have_the_lengths_of_each(tokenizer, texts):
    expected = [len(encode(tokenizer, text)) for text in texts]
    assert text_lengths(tokenizer, texts) == expected


# --------------------------------------------------------------------------- kept for later runs


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny_checkpoint(folder, ["q a"], hidden_size=32, num_layers=1, num_frames=2)
    return DisTimeProcessor.from_pretrained(folder)


def write(folder, answers):
    lines = [
        {"video": "a.mp4", "conversations": [
            {"from": "human", "value": "<video>\nq"}, {"from": "gpt", "value": answer}]}
        for answer in answers
    ]  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entry = {"root": ".", "annotation": "train.jsonl"}
    (folder / "meta.json").write_text(json.dumps({"toy": entry}))
    return folder / "meta.json"


def test_frames_are_not_tokenised(tmp_path, processor, monkeypatch):
    data = TrainingData(write(tmp_path, ["a"] * 50), processor, DataSettings())
    counted = []
    monkeypatch.setattr(
        lengths_module,
        "text_lengths",
        lambda tokenizer, texts: counted.extend(texts) or text_lengths(tokenizer, texts),
    )
    assert len(set(data.lengths())) == 1
    assert not any("<IMG_CONTEXT>" in text for text in counted)


def test_kept_lengths_are_read_until_something_changes(tmp_path, processor, caplog):
    caplog.set_level(logging.INFO)
    meta = write(tmp_path, ["a", "a a", "a a a", ""])

    def kept(**flags):
        data = TrainingData(meta, processor, DataSettings(**flags))
        return data, KeptLengths(data, tmp_path / "out")

    data, files = kept()
    assert files.load() is None
    lengths = data.lengths()
    assert lengths[3] == 0
    files.save(lengths)
    (file,) = tmp_path.glob("train.jsonl.lengths-*.npy")
    assert str(file) in caplog.text
    assert kept()[1].load() == lengths == kept(sampling_seed=1)[1].load()
    for flags in ({"max_num_frame": 20}, {"max_seq_length": 99}, {"share_video_prefix": True}):
        assert kept(**flags)[1].load() is None
    file.write_bytes(file.read_bytes()[:-3])
    assert kept()[1].load() is None
    files.save(lengths)
    write(tmp_path, ["a", "a a", "a a a", "a"])
    assert kept()[1].load() is None


def test_lengths_go_elsewhere_if_the_folder_takes_none(tmp_path, processor, monkeypatch, caplog):
    data = TrainingData(write(tmp_path, ["a"]), processor, DataSettings())
    files, refused = KeptLengths(data, tmp_path / "out"), {tmp_path}
    written_whole = lengths_module.written_whole

    def write_unless_refused(path):
        if path.parent in refused:
            raise PermissionError
        return written_whole(path)

    monkeypatch.setattr(lengths_module, "written_whole", write_unless_refused)
    files.save([5])
    assert list((tmp_path / "out").glob("*.npy")) and KeptLengths(data, tmp_path / "out").load()
    refused.add(tmp_path / "out")
    files.save([5])
    assert "cannot be kept there" in caplog.text
