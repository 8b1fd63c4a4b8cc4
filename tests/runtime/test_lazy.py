import importlib
import py_compile
import sys

import pytest

from socodet.runtime.lazy import lazy_names

PACKAGE = """
from typing import TYPE_CHECKING

from socodet.runtime.lazy import lazy_getattr

if TYPE_CHECKING:
    from json import loads as read

    from .numbers import SEVEN as SEVEN

__getattr__ = lazy_getattr(__name__)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "numbers.py").write_text("SEVEN = 7")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in ("lazy_package", "lazy_package.numbers"):
        sys.modules.pop(name, None)


def test_names_imported_under_type_checking_are_loaded_on_first_use(package):
    lazy_package = importlib.import_module("lazy_package")
    assert "lazy_package.numbers" not in sys.modules
    assert lazy_package.SEVEN == 7
    assert lazy_package.read("[1]") == [1]
    with pytest.raises(AttributeError, match="'lazy_package' has no attribute 'loads'"):
        _ = lazy_package.loads


def test_a_package_without_its_source_is_one_clear_error(package):
    source = package / "__init__.py"
    py_compile.compile(str(source), cfile=str(package / "__init__.pyc"))
    source.unlink()
    with pytest.raises(ImportError, match="lazy_package: its source"):
        importlib.import_module("lazy_package")


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("socodet.detection.datasets", {"open_detection_set", "DetectionDataset", "ReadingSettings"}),
        ("socodet.detection.detectors", {"new_detector", "Detector"}),
        ("socodet.views", {"make_sample", "ViewSettings"}),
    ],
)
def test_all_names_of_a_package_can_be_imported_from_it(package, names):
    importlib.import_module(package)
    given = lazy_names(package)
    assert names <= set(given)
    for name, (module, there) in given.items():
        assert getattr(sys.modules[package], name) is getattr(importlib.import_module(module), there)
