"""The CUDA kernels of fused batch norm and RoIAlign, run on a CPU by Triton's interpreter; a script.

The interpreter must be selected before Triton is imported, hence a separate process.
"""

import os
import tempfile

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from norm_checks import check, check_block, check_nan, check_outlier, check_together
from torchvision.models.resnet import BasicBlock, Bottleneck

from socodet.models import fused_norm, norm_kernels_cuda, norm_statistics_cuda


def in_process(rank: int, store: str) -> None:
    """One of two processes, which have 1 and 4 of 5 images."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    images = slice(0, 1) if rank == 0 else slice(1, 5)
    for add in (False, True):
        torch.manual_seed(1)
        kinds = {"add": add, "relu": True, "images": images}
        check(norm_kernels_cuda, (5, 18, 7, 6), dtype=torch.float32, tolerance=2e-6, **kinds)
        check(norm_kernels_cuda, (5, 16, 8, 8), dtype=torch.bfloat16, tolerance=6e-3, **kinds)
    fused_norm.kernels_of = lambda device, dtype: norm_kernels_cuda
    check_together()
    dist.destroy_process_group()


torch.set_num_threads(1)  # a process forked later must not depend on this one's threads
norm_statistics_cuda.TILE = 512  # so that small maps have several tiles and several programs per reduction
torch.manual_seed(0)
check_nan(norm_kernels_cuda)
check_outlier(norm_kernels_cuda)
for add in (False, True):
    for relu in (False, True):
        check(norm_kernels_cuda, (3, 5, 7, 6), add=add, relu=relu, dtype=torch.float32, tolerance=2e-6)
        check(norm_kernels_cuda, (2, 130, 5, 4), add=add, relu=relu, dtype=torch.float32, tolerance=2e-6)
        check(norm_kernels_cuda, (2, 16, 8, 8), add=add, relu=relu, dtype=torch.bfloat16, tolerance=6e-3)
with tempfile.TemporaryDirectory() as folder:
    mp.start_processes(in_process, (f"{folder}/store",), nprocs=2, start_method="fork")
calls = []
coefficients = norm_kernels_cuda.coefficients
norm_kernels_cuda.coefficients = lambda *a: calls.append(1) or coefficients(*a)
fused_norm.kernels_of = lambda device, dtype: norm_kernels_cuda
for kind in (BasicBlock, Bottleneck):
    check_block(kind)
assert len(calls) == 3 + 4
import interpreted_roi_align  # noqa: E402, F401  # runs its checks here, since another start would take long

print("all agree")
