"""Draws the README's overview image from real outputs on photographs that come with the package.

    socodet demo --output DEMO
    socodet finetune src/socodet/images/photographs/objects.json --init DEMO/run --output DETECTOR --workers 0 \
        --detector faster_rcnn_fpn --schedule coco_1x --iterations 240 --batch-size 3 --base-lr 0.06 --size 160 \
        --rois-per-image 64 --precise-bn 6
    python benchmarks/readme_picture.py DEMO DETECTOR docs/images/overview.jpg

Both photographs are in the public domain (see ATTRIBUTION.md beside them). The detector was trained on them, with these
boxes.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray
from PIL import Image

import socodet
from socodet.images.photographs import photographs
from socodet.proposals.table import ProposalTable
from socodet.reports.drawing import draw_panel
from socodet.reports.panels import Panel, labelled_panel, proposal_panel
from socodet.reports.theme import LIGHT, POINTS, blank_figure, object_colour, to_png

SHOWN = ("astronaut.jpg", "raccoon.jpg")
BOXES, MIN_SCORE = 8, 0.9
WIDTH, HEIGHT, TOP = 1240, 486, 60
ZOOM = 1.1
"""Resolution: pixels of the file per unit of the layout."""
COLUMN, GAP = 270, 40
NAMES = {"backbone.body": "backbone", "backbone.fpn": "FPN", "roi_heads.box_head": "box head"}
"""The pretrained modules; the others are fresh."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("demo", "detector", "output"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    table, detector = ProposalTable.read(asked.demo / "proposals.parquet"), socodet.load_detector(asked.detector)
    report = socodet.load_pretrained(
        socodet.build_detector(asked.demo / "run", show_report=False), asked.demo / "weights.pth", show_report=False
    )

    def found(name: str, pixels: NDArray[np.uint8]) -> Panel:
        (objects,) = detector.predict([pixels], min_score=MIN_SCORE)
        labels = [f"{label} {score:.2f}" for label, score in zip(objects.labels, objects.scores, strict=True)]
        return labelled_panel(name, pixels, objects.boxes, [object_colour(k) for k in range(len(labels))], labels)

    columns: list[tuple[str, Callable[[str, NDArray[np.uint8]], Panel]] | None] = [
        ("Images without labels", lambda name, pixels: Panel(name, pixels)),
        ("Boxes by selective search", lambda name, pixels: proposal_panel(name, pixels, table.boxes(name), BOXES)),
        None,
        ("After fine-tuning: detections", found),
    ]
    figure = blank_figure(round(WIDTH * ZOOM), round(HEIGHT * ZOOM), dpi=round(100 * ZOOM), background="white")
    for place, column in enumerate(columns):
        left = GAP / 2 + place * (COLUMN + GAP)
        if place:
            figure.text(*_at(left - GAP / 2, 250), "→", size=22 * POINTS, color=LIGHT.muted, ha="center", va="center")
        if column is None:
            figure.text(*_at(left, 28), "Parts of a detector", size=15 * POINTS, weight="bold", color=LIGHT.ink)
            _draw_modules(figure.add_axes(_box(left, TOP, HEIGHT - TOP - 16)), set(report.loaded_modules))
            continue
        figure.text(*_at(left, 28), column[0], size=15 * POINTS, weight="bold", color=LIGHT.ink)
        top = float(TOP)
        for name in SHOWN:
            pixels = np.array(Image.open(photographs() / name).convert("RGB"))
            scale = COLUMN / pixels.shape[1] * (0.72 if name == SHOWN[0] else 1)
            height, width = pixels.shape[0] * scale, pixels.shape[1] * scale
            axes = figure.add_axes(_box(left, top, height, width))
            draw_panel(axes, column[1](name, pixels), scale)
            top += height + 12
    drawn = Image.open(io.BytesIO(to_png(figure))).convert("RGB")
    drawn.save(asked.output, "JPEG", quality=80, optimize=True)
    print(f"{asked.output}: {asked.output.stat().st_size / 1000:.0f} KB")


def _draw_modules(axes: Axes, pretrained: set[str]) -> None:
    axes.set(xlim=(0, COLUMN), ylim=(HEIGHT - TOP - 16, 0))
    axes.set_axis_off()
    parts = [(name, module in pretrained) for module, name in NAMES.items()]
    parts.insert(2, ("RPN", False))
    parts.append(("class and box predictors", False))
    for place, (name, is_pretrained) in enumerate(parts):
        colour = LIGHT.series[0] if is_pretrained else "white"
        shape = FancyBboxPatch((6, 4 + 62 * place), COLUMN - 12, 44, boxstyle="round,pad=0,rounding_size=8")
        shape.set(facecolor=colour, edgecolor=LIGHT.series[0] if is_pretrained else LIGHT.muted, linewidth=1.2)
        axes.add_patch(shape)
        text: dict[str, Any] = {
            "color": "white" if is_pretrained else LIGHT.ink,
            "ha": "center",
            "va": "center",
            "size": 14 * POINTS,
        }
        axes.text(COLUMN / 2, 26 + 62 * place, name, **text)
    lines = ("blue: learned without labels,", "in views of the boxes", "white: learned from your labels")
    axes.text(6, 62 * len(parts) + 8, "\n".join(lines), color=LIGHT.muted, size=13 * POINTS, va="top", linespacing=1.4)


def _at(x: float, y: float) -> tuple[float, float]:
    return x / WIDTH, 1 - y / HEIGHT


def _box(left: float, top: float, height: float, width: float = COLUMN) -> tuple[float, float, float, float]:
    return left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT


if __name__ == "__main__":
    main()
