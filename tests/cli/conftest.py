import pytest

from answering import write_answering_checkpoint, write_example_videos


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder with a tiny model whose answers name times."""
    return str(write_answering_checkpoint(tmp_path_factory.mktemp("cli") / "checkpoint"))


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Two synthetic videos."""
    folder = tmp_path_factory.mktemp("videos with blanks")
    return [str(path) for path, _ in write_example_videos(folder)]
