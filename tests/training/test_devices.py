"""What is said of the default precision, and how many data workers there are."""

from types import SimpleNamespace

import pytest
import torch

from socodet.training import devices
from socodet.training.devices import autocast_type, default_workers, precision_note


@pytest.mark.parametrize(("instruction", "said"), [("amx_bf16", True), ("avx512_bf16", True), ("avx2", False)])
def test_a_cpu_with_bfloat16_is_told_of_it(monkeypatch, instruction, said):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True, "avx512_f": False}, raising=False)
    note = precision_note("auto", torch.device("cpu"))
    assert (note is not None and "--precision bfloat16" in note) == said
    assert precision_note("float32", torch.device("cpu")) is None


@pytest.mark.parametrize(("capability", "precision"), [(7, torch.float32), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_a_gpu_without_bfloat16_computes_in_float32_and_its_user_is_told(monkeypatch, capability, precision):
    """torch imitates bfloat16 on GPUs before Ampere, whose compute capability is 8."""
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


@pytest.mark.parametrize(
    ("device", "cards", "processes", "workers"),
    [("cpu", 0, 1, 8), ("cpu", 0, 4, 2), ("cpu", 0, 32, 1), ("cuda", 8, 1, 2), ("cuda", 8, 2, 8), ("cuda", 1, 8, 2)],
)
def test_the_processes_of_a_machine_share_its_cores(monkeypatch, device, cards, processes, workers):
    """Of 16 cores; at last, a launcher shows each process its own GPU alone."""
    monkeypatch.setattr(devices, "available_cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    for name, value in {"RANK": 0, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "29500")
    assert default_workers(torch.device(device)) == workers
