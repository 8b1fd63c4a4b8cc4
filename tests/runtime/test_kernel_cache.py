import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import socodet.runtime.kernel_cache
from socodet.runtime.kernel_cache import announce_compilation, cache_folder, njit


def test_any_change_to_a_source_selects_another_cache(tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "kernels.py").write_text("")
    other = tmp_path / "room" / "constants.py"
    other.parent.mkdir()
    monkeypatch.setattr(socodet.runtime.kernel_cache, "__file__", str(tmp_path / "runtime" / "kernels.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = []
    for text in ("RED = 0.2989", "RED = 0.9", "RED = 0.2989"):
        other.write_text(text)
        folders.append(cache_folder.__wrapped__())
    assert folders[0] == folders[2] != folders[1]
    assert folders[0].parent == tmp_path / "cache" / "socodet"


def test_an_unwritable_home_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    code = (
        "from socodet.runtime.kernel_cache import cache_folder; print(cache_folder()); import socodet.views.rendering"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(blocked), "HOME": str(blocked)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_dir()
    assert not done.stdout.startswith(str(blocked))


def test_compilation_is_announced_once_and_only_if_needed(capsys: pytest.CaptureFixture[str]) -> None:
    one = numba.njit(lambda x: x + 1)
    other = numba.njit(lambda x: x + 2)
    with announce_compilation("the sums"):
        assert (one(1), other(1)) == (2, 3)
    assert capsys.readouterr().err.count("compiling the sums, which takes up to half a minute") == 1
    with announce_compilation("the sums"):
        assert one(2) == 3
    numba.njit(lambda x: x + 3)(1)
    assert capsys.readouterr().err == ""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Defines the same kernel as a new process would, either compiled or read from the cache."""
    source = tmp_path / "kernels.py"
    source.write_text("def shifted(x):\n    return x + 1\n")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))

    def define():
        spec = importlib.util.spec_from_file_location("kernels", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return njit(cache=True)(module.shifted)

    return define


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("length", [0, 40])
def test_a_damaged_cache_is_rewritten(kernel, tmp_path, suffix, length):
    assert kernel()(1) == 2
    (file,) = (tmp_path / "cache").rglob(f"*.{suffix}")
    os.truncate(file, length)
    assert kernel()(1) == 2
    known = kernel()
    assert known(1) == 2
    assert sum(known.stats.cache_hits.values()) == 1


def test_a_full_disk_only_prevents_caching(kernel, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_index", full)
    assert kernel()(1) == 2
    assert not list((tmp_path / "cache").rglob("*.nb?"))


def test_an_unusable_cache_folder_is_replaced_or_caching_is_off(kernel, tmp_path, monkeypatch):
    """Numba itself would cache beside the sources, where code may become stale, or fail."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/nowhere")
    monkeypatch.setattr(socodet.runtime.kernel_cache, "cache_folder", lambda: tmp_path / "ours")
    assert kernel()(1) == 2
    kept = list(tmp_path.rglob("*.nbi"))
    assert kept
    assert all(tmp_path / "ours" in file.parents for file in kept)

    def fail():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(socodet.runtime.kernel_cache, "cache_folder", fail)
    shutil.rmtree(tmp_path / "ours")
    assert kernel()(1) == 2
    assert not list(tmp_path.rglob("*.nbi"))
    assert numba.config.CACHE_DIR == "/dev/null/nowhere"


def test_a_cache_folder_writable_by_others_is_not_used(tmp_path, monkeypatch):
    """Anybody can write to the temporary folder, so a folder with our name may be another user's trap."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / f"socodet-{os.getuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    assert trap not in cache_folder.__wrapped__().parents
    trap.chmod(0o700)
    assert trap in cache_folder.__wrapped__().parents
    shutil.rmtree(trap)
    trap.symlink_to(tmp_path / "elsewhere")
    assert trap not in cache_folder.__wrapped__().parents
    assert not (tmp_path / "elsewhere").exists()
