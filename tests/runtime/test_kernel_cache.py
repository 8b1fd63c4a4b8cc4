import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import socodet.runtime.kernel_cache
from socodet.runtime.kernel_cache import cache_folder, compilation_announced


def test_any_change_of_a_source_gives_another_cache(tmp_path, monkeypatch):
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


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path):
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


def test_announced_once_and_only_when_something_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    one = numba.njit(lambda x: x + 1)
    other = numba.njit(lambda x: x + 2)
    with compilation_announced("the sums"):
        assert (one(1), other(1)) == (2, 3)
    assert capsys.readouterr().err.count("compiling the sums, which takes up to half a minute") == 1
    with compilation_announced("the sums"):
        assert one(2) == 3
    numba.njit(lambda x: x + 3)(1)
    assert capsys.readouterr().err == ""
