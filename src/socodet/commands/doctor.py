"""`socodet doctor`: checks whether this installation works, and shows what this machine has."""

import importlib.metadata
import json
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from socodet._version import __version__
from socodet.commands.licences import print_licences, required
from socodet.runtime.shown import Shown, ShownTable

PACKAGES = ("torch", "torchvision", "numba", "llvmlite", "numpy", "pillow", "simplejpeg", "pyarrow", "safetensors")
EXTRAS = (
    "timm",
    "transformers",
    "onnx",
    "onnxruntime",
    "pillow-heif",
    "tifffile",
    "imagecodecs",
    "scipy",
    "wandb",
    "mlflow",
    "mlflow-skinny",
    "huggingface-hub",
)
SMALL_SHM = 1 << 30
"""Free bytes of /dev/shm below which data workers may run out of it."""
FEW_FILES = 1024


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    what: str
    found: str
    problem: str | None = None
    """What is wrong, and how to fix it; None if nothing is."""


class Findings(list[Finding], Shown):
    """The results of all checks; prints as the command does."""

    def __str__(self) -> str:
        width = max((len(one.what) for one in self), default=0)
        lines = [f"socodet {__version__}"]
        for one in self:
            lines.append(f"{'ok ' if one.problem is None else 'BAD'} {one.what:<{width}}  {one.found}")
            if one.problem is not None:
                lines.append(f"    {'':<{width}}  {one.problem}")
        return "\n".join(lines)

    def shown(self) -> list[ShownTable]:
        """What was found, and what is wrong with it."""
        rows = [(one.what, one.found, "ok" if one.problem is None else one.problem) for one in self]
        return [ShownTable(rows, ("", "found", ""))]


def doctor(as_json: Annotated[bool, tyro.conf.arg(name="json")] = False, licences: bool = False) -> None:
    """Check the installation and the machine: versions, devices, decoder, kernels, cores, disk, limits.

    The exit code is 1 if something does not work. Include the output in bug reports.

    Args:
        as_json: Print one JSON object.
        licences: Instead, print the licences of socodet and of all packages that it needs to run.
    """
    if licences:
        print_licences(as_json)
        return
    findings = examine()
    if as_json:
        print(json.dumps({"socodet": __version__, "findings": [asdict(one) for one in findings]}, indent=2))
    else:
        print(findings)
    if any(one.problem for one in findings):
        raise SystemExit(1)


def examine() -> Findings:
    """Checks this installation and this machine; each finding says what is wrong, if anything, and how to fix it."""
    checks: tuple[Callable[[], Finding], ...] = (_python, _packages, _extras, _operators, _device)
    return Findings(
        _run_check(check)
        for check in (*checks, _compiler, _decoder, _kernels, _cores, _disk, _shared_memory, _open_files)
    )


def _run_check(check: Callable[[], Finding]) -> Finding:
    """The result of a check; an exception becomes a finding as well."""
    try:
        return check()
    except Exception as error:
        what = check.__name__.strip("_").replace("_", " ")
        return Finding(what, "does not work", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _python() -> Finding:
    return Finding("python", f"{platform.python_version()} in {sys.prefix}, {platform.platform()}")


def _packages() -> Finding:
    unmet = _unmet()
    problem = f"{', '.join(unmet)}: required, but not installed; pip install socodet again" if unmet else None
    return Finding("packages", _versions(PACKAGES), problem)


def _unmet() -> list[str]:
    """The packages that socodet requires (without extras) but that are missing or have another version."""
    found = []
    for one in required("socodet"):
        version = _versions((one.name,)).rpartition(" ")[2]
        if not version or not one.specifier.contains(version, prereleases=True):
            found.append(f"{one.name}{one.specifier}" + f" (not {version})" * bool(version))
    return found


def _extras() -> Finding:
    return Finding("extras", _versions(EXTRAS) or "none")


def _versions(names: tuple[str, ...]) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _operators() -> Finding:
    """Checks torchvision's operators, which are missing if the builds of torch and torchvision do not match."""
    import torch
    from torchvision.ops import nms, roi_align

    what, fix = "operators", "install torch and torchvision together, from one index: see constraints.txt"
    try:
        pooled = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]]), 2, aligned=True)
        kept = nms(torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]]), torch.tensor([0.5, 0.9]), 0.5)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return Finding(what, f"torchvision's fail: {' '.join(str(error).split())[:100]}", fix)
    right = bool((pooled == 1).all()) and kept.tolist() == [1]
    return Finding(
        what,
        "torchvision's RoIAlign and NMS give correct results" if right else "wrong results",
        None if right else fix,
    )


def _device() -> Finding:
    import torch

    from socodet.training.devices import idle_gpu

    if not torch.cuda.is_available():
        return Finding("device", "CPU; no CUDA device", idle_gpu())
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    listed = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in names)
    (torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")).sum().item()
    return Finding("device", f"CUDA {torch.version.cuda}: {listed}")


def _compiler() -> Finding:
    """Looks for a C compiler as Triton, which comes with torch for CUDA, does when a kernel is first used."""
    import torch

    there = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    fix = "CUDA kernels need it, and without them steps are slower: install gcc"
    return Finding("C compiler", there or "none", fix if there is None and torch.cuda.is_available() else None)


def _decoder() -> Finding:
    import io

    import numpy as np
    from PIL import Image, features

    from socodet.images.decode import decode_image

    file = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 30, 90)).save(file, "JPEG", quality=95)
    pixels = decode_image(file.getvalue())
    right = pixels.shape == (8, 16, 3) and bool(np.abs(pixels.astype(int) - (200, 30, 90)).max() < 12)
    more = [name for name in ("webp", "avif", "jpg_2000") if features.check(name)]
    problem = None if right else "a JPEG is decoded incorrectly; reinstall simplejpeg"
    return Finding("decoder", f"JPEG by simplejpeg; by Pillow also {', '.join(more) or 'none of WebP, AVIF'}", problem)


def _kernels() -> Finding:
    """Whether compiled kernels can be saved; compiles none."""
    import numba

    from socodet.runtime.kernel_cache import cache_folder

    folder = Path(numba.config.CACHE_DIR or cache_folder())
    kept = sum(1 for _ in folder.rglob("*.nbc")) if folder.is_dir() else 0
    state = f"{kept} compiled" if kept else "none compiled yet; the first run compiles them, which takes up to a minute"
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    problem = None if writable else "compiled kernels cannot be saved there; set NUMBA_CACHE_DIR to a writable folder"
    return Finding("kernels", f"{state}, in {folder}", problem)


def _cores() -> Finding:
    from socodet.runtime.limits import available_cores

    return Finding("cores", f"{available_cores()} of {os.cpu_count()} are available to this process")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    problem = None if free > 1 << 30 else "less than 1 GiB is free here; write runs elsewhere"
    return Finding("disk", f"{free / 2**30:.1f} GiB free in {Path.cwd()}", problem)


def _shared_memory() -> Finding:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return Finding("shared memory", "no /dev/shm on this system")
    free = shutil.disk_usage(shm).free
    fix = "data workers may run out of it: enlarge it (docker run --shm-size 4g), or give --workers 0"
    return Finding("shared memory", f"{free / 2**30:.1f} GiB free in /dev/shm", None if free >= SMALL_SHM else fix)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = "" if soft == hard else f", can be raised to {hard:,}"
    problem = None if hard == resource.RLIM_INFINITY or hard >= FEW_FILES else "too few; raise it (ulimit -Hn)"
    return Finding("open files", f"at most {soft:,}{more}", problem)
