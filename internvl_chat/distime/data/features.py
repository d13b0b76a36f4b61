"""Features of a frozen vision tower, on disk: computed once, read in every epoch and every run.

A file holds what the projector gives for the frames of a video or of an item's images, with what
else training needs of them, so that the media are not decoded either. Its name comes from all that
decides its content: the weights of vision tower and projector, how frames are chosen and prepared,
and the media's path, size and time of change. So nothing stale is ever read, several runs can fill
one folder at the same time, and a filling that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from distime.backbones.base import CommonSettings
from distime.errors import DisTimeError
from distime.processing.image import ImageError
from distime.processing.prompt import Media
from distime.processing.video import VideoError

if TYPE_CHECKING:
    from distime.data.dataset import TrainingData

logger = logging.getLogger(__name__)


class FeatureError(DisTimeError):
    """Features cannot be cached; the message says why and what to change."""


@dataclass
class LoadedMedia:
    """The media of an item as training needs them: pixels, or features in their place.

    Attributes:
        media: what the prompt needs to know.
        frame_times: `(R,)` normalised.
        duration: of the video, in seconds; 1 without a video.
        pixel_values: as the backbone has them, in uint8; no rows without media or with features.
        image_features: `(N, W)`, one row for each token, as `encode_images` of the model gives.
        image_grid_thw: `(G, 3)`; None on a backbone whose pictures have one size.
        is_doubtful: something is wrong with the video, which the log has said.
    """

    media: Media
    frame_times: Tensor
    duration: float
    pixel_values: Tensor
    image_features: Tensor | None = None
    image_grid_thw: Tensor | None = None
    is_doubtful: bool = False


def fingerprint(parts: Iterable[nn.Module], dtype: torch.dtype, settings: CommonSettings) -> str:
    """Name the weights and settings that features come from: 16 hexadecimal digits.

    Args:
        parts: vision tower and projector.
        dtype: in which they are run.
        settings: how frames and images are prepared.
    """
    seen = {name: value for name, value in asdict(settings).items() if name != "time_head"}
    digest = hashlib.sha256(f"{dtype} {seen}".encode())
    for part in parts:
        for name, tensor in part.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class FeatureCache:
    """A folder of features, one file for the media of an item.

    Args:
        folder: where to; made if it does not exist.
        fingerprint: see `fingerprint`.
        width: W, numbers that are kept for a token.
        dtype: of the features.
    """

    def __init__(self, folder: str | Path, fingerprint: str, width: int, dtype: torch.dtype):
        self.folder = Path(folder) / fingerprint
        self.nothing = torch.zeros(0, width, dtype=dtype)  # of an item without media
        self.bytes_per_token = width * dtype.itemsize

    def path(self, files: Iterable[str | Path], choice: str) -> Path:
        """Return the file for some media.

        Args:
            files: the video, or the images in order.
            choice: of frames or tiles, in words.

        Raises:
            OSError: a file does not exist.
        """
        described = []
        for file in map(Path, files):
            status = file.stat()
            described.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
        name = hashlib.sha256(json.dumps([choice, described]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    @staticmethod
    def load(path: Path) -> LoadedMedia:
        """Read a file.

        Raises:
            OSError: it is missing or damaged; the message names it.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["media"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise OSError(f"{path}: damaged ({error}); delete it and start again") from error
        for name in ("image_tiles", "slot_words"):
            facts["media"][name] = tuple(facts["media"].get(name, ()))
        media, duration = Media(**facts["media"]), facts["duration"]
        return LoadedMedia(
            media, duration=duration, pixel_values=torch.zeros(0, dtype=torch.uint8), **tensors
        )

    @staticmethod
    def save(path: Path, entry: LoadedMedia) -> None:
        """Write a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = json.dumps({"media": asdict(entry.media), "duration": entry.duration})
        tensors = {"image_features": entry.image_features, "frame_times": entry.frame_times}
        if entry.image_grid_thw is not None:
            tensors["image_grid_thw"] = entry.image_grid_thw
        # Unique for the process, as several may work on the same media.
        partial = path.with_suffix(f".{platform.node()}-{os.getpid()}.partial")
        try:
            save_file(tensors, partial, metadata={"media": facts})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def check_space(self, num_tokens: int) -> None:
        """Log how much is to be written.

        Raises:
            FeatureError: the disk has not that much room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = num_tokens * self.bytes_per_token
        free = shutil.disk_usage(self.folder).free
        logger.info(
            "%s: %.2f GB of features to write (%d tokens of %.1f kB), %.1f GB free",
            self.folder, needed / 1e9, num_tokens, self.bytes_per_token / 1e3, free / 1e9,
        )  # fmt: skip
        if needed > free:
            raise FeatureError(
                f"--cache_features {self.folder.parent}: {needed / 1e9:.1f} GB are needed and "
                f"{free / 1e9:.1f} GB free; choose another disk, or fewer frames"
            )


class _Decoding(Dataset):
    """Media still to be encoded, decoded on demand; what is broken comes as the error's message."""

    def __init__(self, data: TrainingData, missing: Sequence[tuple[Path, int]]):
        self.data, self.missing = data, missing

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, position: int) -> tuple[Path, LoadedMedia | str]:
        path, group = self.missing[position]
        try:
            return path, self.data.decode_media(group)
        except (ImageError, VideoError, OSError) as error:
            return path, str(error)


def fill(
    data: TrainingData,
    encode: Callable[[dict[str, Tensor]], Tensor],
    *,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> int:
    """Write the features of a data set that its cache does not hold yet.

    Broken media are logged and left out; training names them when their turn comes.

    Args:
        data: its `features` are the cache.
        encode: arguments of the model's `encode_images` -> features `(N, W)`.
        rank: of this process, which takes its share of the files.
        world_size: number of processes.
        num_workers: processes that decode.

    Returns:
        the number of files written by this process.

    Raises:
        FeatureError: the disk has not enough room.
    """
    missing = data.missing_features()
    if not missing:
        return 0
    data.features.check_space(sum(tokens for _, _, tokens in missing))
    # By name and not by position: another process may have begun to write, and so see fewer.
    share = [(path, group) for path, group, _ in missing if int(path.stem, 16) % world_size == rank]
    written = 0
    loader = DataLoader(_Decoding(data, share), batch_size=None, num_workers=num_workers)
    for path, loaded in tqdm(loader, desc="features", unit="file", delay=2):
        if isinstance(loaded, str):
            logger.warning("no features for broken media: %s", loaded)
            continue
        tensors = {"pixel_values": loaded.pixel_values, "image_grid_thw": loaded.image_grid_thw}
        features = encode({k: v for k, v in tensors.items() if v is not None})
        features = features.to(data.features.nothing.dtype).contiguous()
        FeatureCache.save(path, replace(loaded, image_features=features))
        written += 1
    return written
