"""What is said of the default precision."""

import pytest
import torch

from socodet.training.devices import precision_note


@pytest.mark.parametrize(("instruction", "said"), [("amx_bf16", True), ("avx512_bf16", True), ("avx2", False)])
def test_a_cpu_with_bfloat16_is_told_of_it(monkeypatch, instruction, said):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True, "avx512_f": False}, raising=False)
    note = precision_note("auto", torch.device("cpu"))
    assert (note is not None and "--precision bfloat16" in note) == said
    assert precision_note("float32", torch.device("cpu")) is None
    assert precision_note("auto", torch.device("cuda")) is None
