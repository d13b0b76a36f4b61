"""Writing a checkpoint in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from transformers import PreTrainedModel

from distime.backbones.internvl.published.config import published_config
from distime.backbones.internvl.published.names import to_published
from distime.model.heads import DEFAULT_HEAD
from distime.model.weights import CheckpointError


def write(model: PreTrainedModel, folder: Path, max_shard_size: int | str = "5GB") -> None:
    """Write config and weights of a model into a folder in the published layout.

    Args:
        model: a DisTime model.
        folder: made if it is not there.
        max_shard_size: bytes of a weight file, above which there are several and an index.

    Raises:
        CheckpointError: the layout has no place for its time head.
    """
    time_head, reencodes = model.config.time_head, model.config.reencode_times
    if time_head != DEFAULT_HEAD or not reencodes:
        raise CheckpointError(
            f"the published layout knows nothing of time_head {time_head} and reencode_times "
            f"{reencodes}: keep ours"
        )
    published = to_published(model.state_dict(), model.config)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in published.items()}
    config = published_config(model.config, model.time_decoder.layers[0].weight.dtype)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    save_torch_state_dict(tensors, folder, max_shard_size=max_shard_size, metadata={"format": "pt"})
