"""Setup for every test."""

import gc
import logging
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from socodet.runtime import notices
from socodet.runtime.limits import available_cores

# As on the command line, waiting threads sleep instead of spinning; otherwise tests crawl on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.dont_write_bytecode = False  # otherwise every worker rewrites all assertions on every run, which takes seconds
gc.disable()  # until collection is over: imports leave no garbage
if "PYTEST_XDIST_WORKER" in os.environ:  # there is at least one worker per core
    os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("a slow machine", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("a slow machine")
notices.LOADING_AFTER = (
    3600.0  # so that a slow machine does not change what a command prints (runtime/test_loading.py tests the note)
)


def pytest_sessionstart():
    """Removes shell and CI variables that change what is printed or where runs are logged; pytest keeps its colours."""
    for name in [*os.environ]:
        if re.match(r"(WANDB|MLFLOW|SLURM|TTY)_|(FORCE|NO)_COLOR$|COLUMNS$", name):
            del os.environ[name]
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1")  # the tests' own servers


@pytest.fixture(scope="module")
def narrow_networks():
    """ResNets with an eighth of their channels and narrow mask heads, for tests in which the width does not matter."""
    from narrow_models import NARROWED

    with pytest.MonkeyPatch.context() as patch:
        for name, value in NARROWED.items():
            patch.setattr(name, value)
        yield


@pytest.fixture(autouse=True)
def log_level_kept():
    """The logger's level is the process's, and a command with --quiet or --verbose changes it."""
    logger = logging.getLogger("socodet")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def signals_heard():
    """SIGINT and SIGHUP act as in a foreground process; in the background or under nohup they are ignored."""
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def any_bytes_in_names(tmp_path):
    """Skips the test where the file system refuses names that are not UTF-8, as macOS's does."""
    strange = tmp_path / os.fsdecode(b"\xfe")
    try:
        strange.touch()
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    strange.unlink()


@pytest.fixture
def figures_unrendered(monkeypatch):
    """Saves every figure as one pixel: rendering takes most of a study's time, and other tests check it."""
    from matplotlib.figure import Figure
    from PIL import Image

    def save(_figure, file, *, format, **_options):
        if format == "svg":
            file.write(b"<svg/>")
        else:
            Image.new("RGB", (1, 1)).save(file, format)

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture(scope="module", autouse=True)
def folders_removed(request, tmp_path_factory):
    """Removes what a module's fixtures wrote, gigabytes in all, unless a test failed; shared_* is for other modules."""
    base, failed = tmp_path_factory.getbasetemp(), request.session.testsfailed
    before = set(base.iterdir())
    yield
    if request.session.testsfailed == failed:
        for folder in (one for one in set(base.iterdir()) - before if not one.name.startswith("shared_")):
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)


SLOWEST = [
    "faults/test_faults.py",  # compiles all kernels, while the other workers run the next five, which need few
    "deployment/test_onnx_export.py",
    "finetuning/test_finetune.py",
    "models/test_fused_norm.py",
    "weights/test_load_transformers.py",
    "detection/test_any_annotations.py",
    "training/test_distributed.py",
    "studies/test_comparison_running.py",
    "test_documented_commands.py",
    "studies/test_own_data.py",
    "studies/test_ablation.py",
    "reports/test_report.py",
    "test_examples.py",
    "test_cli.py",
    "proposals/test_selective_search.py",
    "proposals/test_shares.py",
    "pretraining/test_recipes.py",
    "studies/test_finetuning_rows.py",
    "test_end_to_end.py",
    "reports/test_demo.py",
    "pretraining/test_optimizer_step.py",
    "weights/test_load_torchvision.py",
]
"""These modules run first, the longest at the front; otherwise one worker would finish long after the others."""
SAME_WORKER = {
    "faults/test_interrupt.py": "faults/test_faults.py",
    "faults/test_processes.py": "faults/test_faults.py",
    "finetuning/test_finetune_distributed.py": "training/test_distributed.py",
}
"""Each module runs on the same worker as the one it maps to: they share a process that has imported everything."""


def scope(test):
    """The group of a test, named after a module; one worker runs all tests of a group."""
    module = test.split("::")[0].removeprefix("tests/")
    return SAME_WORKER.get(module, module)


def pytest_xdist_auto_num_workers(config):
    """One worker more than there are cores: some tests wait for other processes or for time to pass."""
    return available_cores() + 1


def pytest_collection_modifyitems(items):
    """Orders the modules: the slowest first, the others by their number of tests."""
    tests, here = Path(__file__).parent, {}
    for item in items:
        here.setdefault(scope(item.path.relative_to(tests).as_posix()), []).append(item)
    ranks = {module: place for place, module in enumerate(SLOWEST)}
    order = sorted(here, key=lambda module: (ranks.get(module, len(ranks)), -len(here[module])))
    items[:] = [item for module in order for item in sorted(here[module], key=lambda item: item.path.as_posix())]


def pytest_collection_finish():
    """Exempts everything imported from garbage collection."""
    gc.freeze()
    gc.enable()


class Scopes(LoadScopeScheduling):
    """xdist's scheduler, grouping tests by `scope`."""

    def _split_scope(self, nodeid):
        return scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    """Keeps the order of `pytest_collection_modifyitems`."""
    return Scopes(config, log) if config.getvalue("dist") == "loadscope" else None
