"""Tiny tokenizers of every kind that DisTime reads, written as the published files are."""

import json

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHAT_TOKENS = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>"]
CHAT_TOKENS += ["<|im_end|>", "<|im_start|>"]
IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>"]
IMAGE_TOKENS += ["<box>", "</box>"]

SENTENCES = [
    "The event is depicted at noon. When does it occur in the video?",
    "person closes a cupboard door, assistant user system",
    "Please return the timestamp in seconds: clean the bananas, take the skin off.",
]


def added_token(content):
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"content": content, **flags, "special": True}


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


def write_internlm2(folder, add_dummy_prefix=False, remove_extra_whitespaces=False, **config):
    """sentencepiece BPE, its chat tokens standing in for the last six pieces as in InternLM2."""
    folder.mkdir(parents=True, exist_ok=True)
    unused = [f"[UNUSED_{i}]" for i in range(len(CHAT_TOKENS))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=360,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=unused,
        add_dummy_prefix=add_dummy_prefix,
        remove_extra_whitespaces=remove_extra_whitespaces,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    decoder = {str(i): added_token(t) for i, t in enumerate(["<unk>", "<s>", "</s>"])}
    for piece, token in zip(unused, CHAT_TOKENS, strict=True):
        decoder[str(model.piece_to_id(piece))] = added_token(token)
    for i, token in enumerate(IMAGE_TOKENS):
        decoder[str(model.get_piece_size() + i)] = added_token(token)
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": decoder,
            "additional_special_tokens": CHAT_TOKENS + IMAGE_TOKENS,
            "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 8192,
            "tokenizer_class": "InternLM2Tokenizer",
            **config,
        },
    )
    return model


def write_qwen2(folder, merges=("t h", "th e", "Ġ a")):
    """Byte-level BPE: the 256 byte symbols, a few merges, then the added tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [merge.replace(" ", "") for merge in merges]
    write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    ids = {token: len(pieces) + i for i, token in enumerate(tokens)}
    write_json(folder / "added_tokens.json", ids)
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {str(i): added_token(t) for t, i in ids.items()},
            "additional_special_tokens": tokens[1:],
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "tokenizer_class": "Qwen2Tokenizer",
        },
    )
    return pieces, ids


def write_word_level(folder):
    """Whole words and punctuation; white space is dropped."""
    words = sorted({w for s in SENTENCES for w in s.replace(",", " ").replace(".", " ").split()})
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", ",", ".", "?", ":", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>", *IMAGE_TOKENS],
    )
    tokenizer.save_pretrained(folder)
    return vocabulary
