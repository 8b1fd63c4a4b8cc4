"""The same seed gives the same weights for any number of data workers and of proposal shares."""

import os

import pytest
import torch
from small_pretraining import GRID, go, make_images

from socodet.errors import InputError
from socodet.proposals import part_files
from socodet.proposals.shares import Share, merge_shares, propose_share
from socodet.training.checkpoint_file import read_state
from socodet.training.devices import deterministic_algorithms
from socodet.training.run_folder import RunFolder

STEPS = 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    make_images(folder)
    return folder


def weights(run):
    return {name: tensor.tolist() for name, tensor in RunFolder(run).load_checkpoint()["model"].items()}


@pytest.fixture(scope="module")
def of_seed_0(files):
    """The reference run, without data workers."""
    go(files, "alone", STEPS, checkpoint_every=1)
    run = RunFolder(files / "alone")
    last, before = weights(run.path), read_state(run.checkpoint(STEPS - 1))["model"]
    assert any(values != before[name].tolist() for name, values in last.items())  # the weights have changed
    return last


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_data_workers_changes_no_weight(files, of_seed_0, workers):
    go(files, f"workers{workers}", STEPS, workers=workers)
    assert weights(files / f"workers{workers}") == of_seed_0


@pytest.mark.parametrize("shares", [3])
def test_proposals_made_in_shares_change_no_weight(files, of_seed_0, tmp_path, monkeypatch, shares):
    monkeypatch.setattr(part_files, "PART", 1)
    table = tmp_path / "shares.parquet"
    for number in range(shares, 0, -1):
        propose_share(
            files / "images", table, Share(number, shares), settings=GRID, workers=1, show_progress=False
        )  # fmt: skip
    merge_shares(files / "images", table, settings=GRID)
    go(files, f"shares{shares}", STEPS, proposals=table)
    assert weights(files / f"shares{shares}") == of_seed_0


def test_deterministic_changes_no_weight_on_a_cpu(files, of_seed_0, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []

    class Sink:
        def write(self, step, line):
            seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

        def close(self):
            pass

    go(files, "deterministic", STEPS, deterministic=True, log_every=1, sinks=[Sink()])
    assert weights(files / "deterministic") == of_seed_0
    assert seen == [(True, False)] * STEPS
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_an_operation_without_a_deterministic_algorithm_is_one_line():
    with (
        pytest.raises(InputError, match="--deterministic: put_ does not have") as raised,
        deterministic_algorithms(True),
    ):
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
    assert "\n" not in str(raised.value)
    with pytest.raises(RuntimeError, match="shape"), deterministic_algorithms(True):
        torch.zeros(3).view(2, 2)
    assert not torch.are_deterministic_algorithms_enabled()
