"""Setup for every test."""

import os
import shutil

import pytest

# As the command line does: threads wait asleep, so that tests are not many times slower beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # there is a worker per core
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module")
def narrow_networks():
    """ResNets with an eighth of their channels and narrow mask heads, for tests of what is done with any network."""
    from narrow_models import NARROWED

    with pytest.MonkeyPatch.context() as patch:
        for name, value in NARROWED.items():
            patch.setattr(name, value)
        yield


@pytest.fixture(scope="module", autouse=True)
def folders_removed(request, tmp_path_factory):
    """Removes what a module's fixtures wrote, gigabytes in all, unless a test failed; other modules use shared_*."""
    base, failed = tmp_path_factory.getbasetemp(), request.session.testsfailed
    before = set(base.iterdir())
    yield
    if request.session.testsfailed == failed:
        for folder in (one for one in set(base.iterdir()) - before if not one.name.startswith("shared_")):
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)
