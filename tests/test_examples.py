"""The scripts and the notebook in examples/ run from top to bottom; docs/how_to/extending.md shows parts of them."""

import json
import re
import runpy
from pathlib import Path

import pytest

from socodet.runtime import extensions

pytestmark = pytest.mark.usefixtures("narrow_networks", "figures_unrendered")

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
SHORT = {
    "EPOCHS, STEPS = 30, 60": "EPOCHS, STEPS = 1, 1",
    "size=160": "size=32",
    "rois_per_image=64": "rois_per_image=8",
}
"""Replacements that make the notebook's runs short."""
PAGE = (ROOT / "docs" / "how_to" / "extending.md").read_text()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs in an empty working directory; registrations are undone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extensions, "_REGISTERED", {})


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(path, tmp_path):
    runpy.run_path(str(path), run_name="__main__")
    made = {"own_loop": "detector.pth", "own_proposals": "runs/edges.html", "own_detector": "runs/det/run.json"}
    assert (tmp_path / made.get(path.stem, f"runs/{path.stem}/run.json")).exists()
    assert all(name.startswith(f"{path.stem}:") for name in extensions._REGISTERED)
    for run in tmp_path.rglob("run.json"):  # records which of the script's objects it used
        assert any(f'"{name}"' in run.read_text() for name in extensions._REGISTERED)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_the_page_has_its_commands(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    commands = re.findall(r"^    (socodet .*)$", text, re.M)
    assert all(command in PAGE for command in commands)
    assert f"examples/{path.name}" in PAGE


def test_code_on_the_page_is_from_the_scripts():
    scripts = [path.read_text() for path in SCRIPTS]
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) >= 5
    for block in blocks:
        assert any(block in text for text in scripts), block
    classes = set(re.findall(r"\bown_\w+:\w+", PAGE))
    for name in classes:
        module, _, attribute = name.partition(":")
        assert re.search(rf"^(class|def) {attribute}\b", (ROOT / "examples" / f"{module}.py").read_text(), re.M)


def test_the_notebook_runs(tmp_path, monkeypatch):
    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    text = "\n".join(cells)
    assert all(text.count(long) == 1 for long in SHORT)
    values = {"__name__": "__main__"}
    for cell in cells:
        for long, short in SHORT.items():
            cell = cell.replace(long, short)
        exec(compile(cell, "first_steps.ipynb", "exec"), values)
    folder = tmp_path / "first_steps"
    assert all((folder / name).exists() for name in ("proposals.png", "report.html", "found/drawn/hopper.jpg"))
