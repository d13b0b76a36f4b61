"""Writing a checkpoint in another layout, whole and read back, or not at all."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from distime.backbones import DisTimeForConditionalGeneration
from distime.conversion_target import ConvertError, check_target
from distime.model.loading import class_of
from distime.model.tokens import SPECIAL_TOKENS
from distime.model.weights import read_json, read_tensors
from distime.model_card import write_model_card
from distime.processing.processor import DisTimeProcessor
from distime.processing.tokenizer import encode

logger = logging.getLogger(__name__)

# Every kind of piece that the two readers of a tokenizer could cut differently.
_PROBE = "".join(
    ["<|im_start|>user\n", *SPECIAL_TOKENS, " When  does it's 12.5\t你好é🙂 end?<|im_end|>\n"]
)


def convert(
    source: Path,
    target: Path,
    layout: str = "distime",
    *,
    overwrite: bool = False,
    verify: bool = True,
    max_shard_size: int | str = "5GB",
    seed: int = 0,
    adapter_base: Path | None = None,
) -> None:
    """Write a checkpoint in another layout, with processor, tokenizer and model card.

    Args:
        source: folder of a checkpoint in any layout.
        target: folder to write; made at the very end.
        layout: "distime" or "published".
        overwrite: replace a target that holds a checkpoint.
        verify: read the result back and compare every tensor and the tokenizer.
        max_shard_size: bytes of a weight file, above which there are several and an index.
        seed: draws what a base checkpoint lacks.
        adapter_base: folder of the base, where the source is an adapter.

    Raises:
        ConvertError: the target must not be replaced, or the result does not read back equal.
        CheckpointError: the source's weights or config cannot be read.
        TokenizerError: its tokenizer cannot be read.
    """
    check_target(source, target, overwrite)
    torch.manual_seed(seed)
    model = DisTimeForConditionalGeneration.from_pretrained(
        source, adapter_base=adapter_base, exact=True
    )
    processor = DisTimeProcessor.from_pretrained(source)
    processor.check_model(model.config)

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        # The processor's own file goes along in both layouts: it keeps settings, such as the
        # number of frames, that the published layout has no place for.
        processor.save_pretrained(partial)
        if layout == "published":
            model.write_published(partial, processor.tokenizer, max_shard_size)
            model.generation_config.save_pretrained(partial)
        else:
            model.save_pretrained(partial, max_shard_size=max_shard_size)
        write_model_card(
            partial, model.config, processor.settings, name=target.resolve().name, source=source
        )
        if verify:
            _verify(model, processor, partial, _tensors_of(source, seed))
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _tensors_of(folder: Path, seed: int = 0) -> dict[str, Tensor]:
    """The tensors in the files of a checkpoint by our names; none of an adapter's, which change."""
    if not (folder / "config.json").is_file():
        return {}
    cls = class_of(folder)
    if cls.reads(read_json(folder / "config.json")):
        torch.manual_seed(seed)  # draws the same new rows as the first time
        return cls.read(folder, {}).tensors
    return read_tensors(folder)


def _verify(
    model: DisTimeForConditionalGeneration,
    processor: DisTimeProcessor,
    folder: Path,
    source: dict[str, Tensor],
) -> None:
    """Raise unless what was written reads back as the same model and processor.

    Args:
        model: that was written.
        processor: likewise.
        folder: that was written into.
        source: the tensors of the source's files: the model must have lost nothing of them.
    """
    again = DisTimeProcessor.from_pretrained(folder)
    before, after = processor.tokenizer, again.tokenizer
    if before.get_vocab() != after.get_vocab() or encode(before, _PROBE) != encode(after, _PROBE):
        raise ConvertError(f"{folder}: the tokenizer does not read back with the same ids")
    if again.settings != processor.settings:
        raise ConvertError(f"{folder}: the processor reads back as {again.settings}")
    copy = DisTimeForConditionalGeneration.from_pretrained(folder, exact=True)
    again.check_model(copy.config)
    expected = model.state_dict()
    # Files of older versions of transformers have other names for some; the model stands for them.
    expected |= {name: tensor for name, tensor in source.items() if name in expected}
    copies = copy.state_dict()
    different = sorted(
        name
        for name in expected.keys() | copies.keys()
        if name not in expected
        or name not in copies
        or torch.promote_types(expected[name].dtype, copies[name].dtype) != copies[name].dtype
        or not torch.equal(expected[name].to(copies[name].dtype), copies[name])
    )
    if different:
        raise ConvertError(
            f"{folder}: {len(different)} tensors do not read back equal, such as {different[0]}"
        )
