"""The process that starts commands, and fixtures for the tests of untrusted files."""

import os
import shutil

import pytest
from injected import Starter
from malicious import PHOTOGRAPH


@pytest.fixture(scope="session")
def starter(tmp_path_factory):
    """Shared by all modules on a worker, because importing everything takes ten seconds."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    starter = Starter(tmp_path_factory.mktemp("shared_faults") / "out")
    yield starter
    starter.close()


@pytest.fixture
def outside(tmp_path):
    """A folder that must not change, with a photograph that is not the dataset's; the dataset is in `inside/data`."""
    (tmp_path / "inside" / "data").mkdir(parents=True)
    (tmp_path / "private.jpg").write_bytes(PHOTOGRAPH)
    yield tmp_path
    assert sorted(os.listdir(tmp_path)) == ["inside", "private.jpg"]


@pytest.fixture
def folder(outside):
    """The dataset's folder."""
    return outside / "inside" / "data"
