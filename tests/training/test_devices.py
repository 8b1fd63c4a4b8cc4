"""Notes on the default precision, and the number of data workers."""

from types import SimpleNamespace

import pytest
import torch

from socodet.training import devices
from socodet.training.devices import autocast_type, default_workers, precision_note, workers_for


@pytest.mark.parametrize(("instruction", "suggested"), [("amx_bf16", True), ("avx512_bf16", True), ("avx2", False)])
def test_bfloat16_is_suggested_on_cpus_that_have_it(monkeypatch, instruction, suggested):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True, "avx512_f": False}, raising=False)
    note = precision_note("auto", torch.device("cpu"))
    assert (note is not None and "--precision bfloat16" in note) == suggested
    assert precision_note("float32", torch.device("cpu")) is None


@pytest.mark.parametrize(("capability", "precision"), [(7, torch.float32), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_gpu_without_bfloat16_uses_float32_with_a_note(monkeypatch, capability, precision):
    """torch emulates bfloat16 on GPUs older than Ampere, whose compute capability is 8."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=capability))
    gpu = torch.device("cuda")
    assert autocast_type("auto", gpu) is precision
    assert autocast_type("bfloat16", gpu) is torch.bfloat16
    note = precision_note("auto", gpu)
    assert (note is not None and "--precision float16" in note) == (precision is torch.float32)
    assert precision_note("float32", gpu) is None


def set_launcher_variables(monkeypatch, **variables):
    """Sets what a launcher sets."""
    for name, value in {**variables, "MASTER_ADDR": "localhost", "MASTER_PORT": 29500}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("device", "gpus", "processes", "workers"),
    [("cpu", 0, 1, 8), ("cpu", 0, 4, 2), ("cpu", 0, 32, 1), ("cuda", 8, 1, 2), ("cuda", 8, 2, 8), ("cuda", 1, 8, 2)],
)
def test_processes_of_a_machine_share_its_cores(monkeypatch, device, gpus, processes, workers):
    """16 cores. In the last case a launcher shows each process only its own GPU."""
    monkeypatch.setattr(devices, "available_cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    set_launcher_variables(monkeypatch, RANK=0, WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes)
    assert default_workers(torch.device(device)) == workers


PAPERS_BATCH = 2048 * 3 * (224**2 + 224**2 + 112**2)
"""Bytes of the paper's 2,048 images in three views."""
TORCHRUN = {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}
SRUN = {"SLURM_STEP_ID": 0, "SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_TASKS": 4, "SLURM_STEP_NUM_NODES": 2}


@pytest.mark.parametrize(
    ("gigabytes", "asked", "variables", "workers"),
    [
        (1000, None, {}, 64),
        (64, None, {}, 11),  # 11 times 4 batches of 694 MB are 30.5 GB, 12 would be 33.3
        (64, 64, {}, 64),
        (64, 0, {}, 0),
        (1, None, {}, 1),
        (float("inf"), None, {}, 64),
        (64, None, TORCHRUN, 5),
        (64, None, SRUN, 5),
    ],
)
def test_batches_of_default_workers_take_at_most_half_of_the_memory(
    monkeypatch, caplog, gigabytes, asked, variables, workers
):
    """A machine with 64 cores and one GPU; its processes share its memory."""
    monkeypatch.setattr(devices, "available_cores", lambda: 64)
    monkeypatch.setattr(devices, "available_memory", lambda: gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    if variables:
        set_launcher_variables(monkeypatch, **variables)
    gpu = torch.device("cuda")
    fewer = asked is None and workers < default_workers(gpu)
    with caplog.at_level("INFO", "socodet"):
        assert workers_for(asked, gpu, PAPERS_BATCH, show_note=False) == workers
        assert not caplog.messages
        assert workers_for(asked, gpu, PAPERS_BATCH, show_note=True) == workers
    assert ["--workers" in line for line in caplog.messages] == [True] * fewer
