import pytest

from answering import write_answering_checkpoint, write_example_videos
from distime import DisTime


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = write_answering_checkpoint(tmp_path_factory.mktemp("demo") / "checkpoint")
    return DisTime.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="session")
def uploads(tmp_path_factory):
    """Two synthetic videos."""
    folder = tmp_path_factory.mktemp("uploads")
    return [path for path, _ in write_example_videos(folder)]
