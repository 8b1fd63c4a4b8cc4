"""Setup for every test."""

import gc
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
from socodet.runtime.cores import available_cores

# As the command line does: threads wait asleep, so that tests are not many times slower beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.dont_write_bytecode = False  # or each worker of each run rewrites the assertions of all files, for seconds
gc.disable()  # until all is imported, of which nothing becomes garbage
if "PYTEST_XDIST_WORKER" in os.environ:  # there is at least a worker per core
    os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("a slow machine", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("a slow machine")
notices.LOADING_AFTER = (
    3600.0  # a slow machine does not change what a command prints (runtime/test_loading.py tests it)
)


def pytest_sessionstart():
    """What a shell or a CI sets changes neither what is printed nor where runs are logged; pytest has its colours."""
    for name in [*os.environ]:
        if re.match(r"(WANDB|MLFLOW|SLURM|TTY)_|(FORCE|NO)_COLOR$|COLUMNS$", name):
            del os.environ[name]
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1")  # servers of the tests


@pytest.fixture(scope="module")
def narrow_networks():
    """ResNets with an eighth of their channels and narrow mask heads, for tests of what is done with any network."""
    from narrow_models import NARROWED

    with pytest.MonkeyPatch.context() as patch:
        for name, value in NARROWED.items():
            patch.setattr(name, value)
        yield


@pytest.fixture
def signals_heard():
    """SIGINT and SIGHUP act as in a foreground process; a background shell and nohup have them ignored."""
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def any_bytes_in_names(tmp_path):
    """Skips where the file system refuses names that are not UTF-8, as macOS's does."""
    strange = tmp_path / os.fsdecode(b"\xfe")
    try:
        strange.touch()
    except OSError:
        pytest.skip("this file system takes no names that are not UTF-8")
    strange.unlink()


@pytest.fixture
def figures_unrendered(monkeypatch):
    """Figures are made and saved as one pixel: drawing them is most of a study's time, and one test's to check."""
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


SLOWEST = [
    "faults/test_faults.py",  # compiles all kernels while the other workers are at the next five, which need few
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
"""These modules go first, the longest before the others, or one worker would end long after the other."""
ALIKE = {
    "faults/test_interrupt.py": "faults/test_faults.py",
    "faults/test_processes.py": "faults/test_faults.py",
    "finetuning/test_finetune_distributed.py": "training/test_distributed.py",
}
"""One worker runs these modules: they share a process that has imported everything."""


def scope(test):
    """The tests that one worker runs one after the other, as a module's name."""
    module = test.split("::")[0].removeprefix("tests/")
    return ALIKE.get(module, module)


def pytest_xdist_auto_num_workers(config):
    """One worker more than cores: some tests wait, for other processes or for a time to pass."""
    return available_cores() + 1


def pytest_collection_modifyitems(items):
    """Orders the modules, the slowest first and the others by their number of tests."""
    tests, here = Path(__file__).parent, {}
    for item in items:
        here.setdefault(scope(item.path.relative_to(tests).as_posix()), []).append(item)
    ranks = {module: place for place, module in enumerate(SLOWEST)}
    order = sorted(here, key=lambda module: (ranks.get(module, len(ranks)), -len(here[module])))
    items[:] = [item for module in order for item in sorted(here[module], key=lambda item: item.path.as_posix())]


def pytest_collection_finish():
    """Garbage is looked for in what tests make, and not in what is imported."""
    gc.freeze()
    gc.enable()


class Scopes(LoadScopeScheduling):
    """xdist's, by `scope`."""

    def _split_scope(self, nodeid):
        return scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    """The order is that of `pytest_collection_modifyitems`."""
    return Scopes(config, log) if config.getvalue("dist") == "loadscope" else None
