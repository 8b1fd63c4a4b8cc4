"""The process that starts commands, and fixtures of the tests of untrusted files."""

import os
import shutil

import pytest
from injected import Starter
from malicious import PHOTOGRAPH


@pytest.fixture(scope="session")
def starter(tmp_path_factory):
    """Of all modules that a worker runs: it imports everything, which takes ten seconds."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    starter = Starter(tmp_path_factory.mktemp("shared_faults") / "out")
    yield starter
    starter.close()


@pytest.fixture
def outside(tmp_path):
    """A folder that nothing may be added to, with a photograph that is not the sets'; the sets are in `inside/data`."""
    (tmp_path / "inside" / "data").mkdir(parents=True)
    (tmp_path / "private.jpg").write_bytes(PHOTOGRAPH)
    yield tmp_path
    assert sorted(os.listdir(tmp_path)) == ["inside", "private.jpg"]


@pytest.fixture
def folder(outside):
    """The folder of a set."""
    return outside / "inside" / "data"
