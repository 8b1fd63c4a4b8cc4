"""`socodet doctor` on this machine, and where something is broken or missing."""

import importlib.metadata
import json
import re

import numpy
import pytest
import torch
import torchvision

from socodet.cli import main
from socodet.commands import doctor


def found(capsys) -> dict[str, dict]:
    return {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}


def test_nothing_is_wrong_with_this_machine(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "SMALL_SHM", 0)
    main(["doctor", "--json"])
    by_name = found(capsys)
    assert all(one["problem"] is None for one in by_name.values())
    assert f"torch {torch.__version__.split('+')[0]}" in by_name["packages"]["found"]
    assert {"device", "decoder", "kernels", "cores", "disk", "shared memory", "open files"} <= set(by_name)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(by_name) + 1
    assert all(line.startswith("ok ") for line in lines[1:])


@pytest.mark.parametrize(("built_for", "fix"), [(None, "without CUDA"), ("13.0", "driver for CUDA 13.0")])
def test_a_gpu_that_torch_does_not_see_is_a_problem(tmp_path, capsys, monkeypatch, built_for, fix):
    (tmp_path / "0000:17:00.0").mkdir()
    monkeypatch.setattr("socodet.training.devices.GPUS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    assert fix in found(capsys)["device"]["problem"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # it is not to be used
    assert doctor._device().problem is None


def test_a_limit_that_cannot_be_raised_is_stated_once(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "SMALL_SHM", 0)
    for soft, hard in ((20_000, 20_000), (1024, 20_000)):
        monkeypatch.setattr("resource.getrlimit", lambda _, limits=(soft, hard): limits)
        main(["doctor", "--json"])
        figures = re.findall(r"\d[\d,]*", found(capsys)["open files"]["found"])
        assert [int(figure.replace(",", "")) for figure in figures] == sorted({soft, hard})


def test_torchvision_of_another_build_is_reported(capsys, monkeypatch):
    def missing(*_args, **_kwargs):
        raise RuntimeError("operator torchvision::roi_align does not exist")

    monkeypatch.setattr(torchvision.ops, "roi_align", missing)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json"])
    assert ended.value.code == 1
    assert "together" in found(capsys)["operators"]["problem"]


def test_checks_continue_after_a_warning_and_a_failure(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "SMALL_SHM", 1 << 60)
    monkeypatch.setattr("socodet.images.decode.decode_image", lambda *_: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "--shm-size" in out
    assert "ZeroDivisionError" in out
    assert "ok  disk" in out


def test_missing_packages_and_wrong_versions_are_named(capsys, monkeypatch):
    wanted = [
        f"numpy>={numpy.__version__}",
        "pyyaml>=999",
        "no-such-package>=2; python_version>'3'",
        "nothing; extra=='x'",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: wanted)
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    problem = found(capsys)["packages"]["problem"]
    assert "pyyaml>=999" in problem
    assert "no-such-package>=2" in problem
    assert "numpy" not in problem
    assert "nothing" not in problem


@pytest.mark.parametrize("cuda", [False, True])
def test_a_missing_compiler_is_a_problem_only_with_cuda(capsys, monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(doctor, "SMALL_SHM", 1 << 60)  # so that the exit code is 1 in any case
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    compiler = found(capsys)["C compiler"]
    assert compiler["found"] == "none"
    assert (compiler["problem"] is None) == (not cuda)


def test_a_kernel_folder_that_does_not_exist_yet_is_no_problem(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "SMALL_SHM", 0)
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "deep" / "er"))
    main(["doctor", "--json"])
    assert found(capsys)["kernels"]["problem"] is None
    monkeypatch.setattr("numba.config.CACHE_DIR", "/dev/null/deep/er")
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    assert "NUMBA_CACHE_DIR" in found(capsys)["kernels"]["problem"]


def test_licences_without_an_installed_package_are_one_line(capsys, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--licences"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_dependency_has_a_licence_that_binds_users(capsys):
    """No dependency is under the GPL or AGPL, whose terms would extend to what users build."""
    main(["doctor", "--licences", "--json"])
    found = {one["package"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["numpy"]["version"] == numpy.__version__
    assert "BSD-3-Clause" in found["torch"]["licence"]
    assert "MIT" in found["pillow"]["licence"]
    assert "markupsafe" in found  # which jinja2 needs
    assert not [one for one in found.values() if re.search(r"\bA?GPL|GNU (Affero )?General", one["licence"])]
    main(["doctor", "--licences"])
    assert len(capsys.readouterr().out.splitlines()) == len(found)
