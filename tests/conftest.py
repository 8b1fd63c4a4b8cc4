"""Setup for every test."""

import os

import pytest

# As the command line does: threads wait asleep, so that tests are not many times slower beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # there is a worker per core
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module")
def narrow_resnets():
    """ResNets with an eighth of their channels, for a module's tests of what is done with a network of any width."""
    from narrow_models import EighthResNet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socodet.models.backbones.ResNet", EighthResNet)
        yield
