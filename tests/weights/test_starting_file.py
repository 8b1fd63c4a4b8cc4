"""The starting point on disk: what is read, what is never unpickled, and which file a run says it started from."""

import argparse
import hashlib
import os

import pytest
import safetensors.torch
import torch
from torchvision.models import resnet18

from socodet.errors import InputError
from socodet.pretraining.recipes import recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.starting_file import StartingFile

WEIGHTS = {"conv1.weight": torch.randn(4, 3, 7, 7), "bn1.bias": torch.randn(4)}


def assert_is_weights(state):
    assert state.keys() == WEIGHTS.keys()
    assert all(torch.equal(state[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_plain_state_dict(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(WEIGHTS, path)
    found = StartingFile.find(path)
    assert_is_weights(found.read())
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_torchvisions_own_state_dict(tmp_path):
    network = resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    assert StartingFile.find(tmp_path / "resnet18.pth").read().keys() == network.state_dict().keys()


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before torch 1.6"])
def test_the_public_codes_checkpoint_with_its_options(tmp_path, new_format):
    options = argparse.Namespace(arch="resnet50", cutout_ratio=(0.1, 0.3), in_channels=[256, 512], zip=True, aug=None)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9).state_dict()
    content = {"opt": options, "model": WEIGHTS, "optimizer": optimizer, "scheduler": {"last_epoch": 3}, "epoch": 100}
    torch.save(content, tmp_path / "ckpt.pth", _use_new_zipfile_serialization=new_format)
    assert_is_weights(StartingFile.find(tmp_path / "ckpt.pth").read())
    with pytest.raises(Exception, match="Namespace"):  # the permission ended with the reading
        torch.load(tmp_path / "ckpt.pth", weights_only=True)


class Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_is_unpickled(tmp_path):
    torch.save({"model": WEIGHTS, "opt": Intruder(tmp_path / "entered")}, tmp_path / "ckpt.pth")
    with pytest.raises(InputError, match="can be read safely") as caught:
        StartingFile.find(tmp_path / "ckpt.pth").read()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "entered").exists()


def test_a_runs_newest_checkpoint(tmp_path):
    run = RunFolder(tmp_path)
    run.write_description({"recipe": to_json(recipe("tiny"))})
    with pytest.raises(InputError, match="has no checkpoint yet to start from"):
        StartingFile.find(tmp_path)
    run.save_checkpoint(1, {"step": 1, "model": {"other": torch.zeros(1)}})
    run.save_checkpoint(2, {"step": 2, "model": WEIGHTS})
    found = StartingFile.find(tmp_path)
    assert found.path.name == "step-00000002.pt"
    assert_is_weights(found.read())


@pytest.mark.parametrize(
    ("content", "problem"), [({"epoch": 3}, "holds no state dict"), ([torch.ones(1)], "holds no state dict")]
)
def test_a_file_without_a_state_dict(tmp_path, content, problem):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=problem):
        StartingFile.find(tmp_path / "x.pth").read()


def test_what_is_not_there_or_not_a_file_of_weights(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        StartingFile.find(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="not a run"):
        StartingFile.find(tmp_path)
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(InputError, match="not a file of weights that can be read safely"):
            StartingFile.find(tmp_path / name).read()
