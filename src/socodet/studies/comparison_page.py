"""A comparison as one HTML page: tables, AP over the steps with bands, and a description of every init."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from socodet._version import __version__
from socodet.reports.charts import light_and_dark
from socodet.reports.page import Gallery, Section, Table, write_page
from socodet.reports.theme import LIGHT, Theme
from socodet.studies.detector_table import LEGEND, DetectorTable

PAGE = "comparison.html"
CAPTIONS = {
    "iterations": (
        "Box AP over the steps",
        "Thick line: mean over the seeds, in a band of ± one sample standard deviation. Thin lines: single runs. "
        "Dashed line: the final AP of scratch. A difference that is small compared with the bands may be chance.",
    ),
    "labels": ("Box AP over the fraction of the labels", "One dot per run, and a line through the means."),
}


def write_comparison_page(
    table: DetectorTable, folder: Path, title: str, lead: str, origins: Mapping[str, str]
) -> None:
    """Writes the page into the folder. lead: what all runs share. origins: a description of each init."""
    figures = []
    for name, (heading, caption) in CAPTIONS.items():
        alt = f"{heading}: {', '.join(table.inits)}"
        figures += light_and_dark(partial(_figure, table, name), heading, caption, alt)
    sections = [Section("Curves", "", [Gallery(figures, size="large")])] if figures else []
    for fraction in table.fractions:
        header, lines = table.table(fraction)
        above = header.index("above")
        marked = frozenset(place for place, line in enumerate(lines) if line[above])
        rows = [[cell or "–" for cell in line] for line in lines]
        text = f"In colour: inits that are above another. {LEGEND['above']}"
        sections.append(
            Section(f"{100 * fraction:g}% of the training images", text, [Table(header, rows, marked=marked)])
        )
    inits = [[name, origins[name]] for name in table.inits]
    sections.append(Section("Inits", "", [Table(("init", "weights"), inits)]))
    write_page(
        folder / PAGE,
        title,
        sections,
        {"Folder": str(folder), "Page written by": f"socodet {__version__}"},
        lead=lead,
    )


def _figure(table: DetectorTable, name: str, *, theme: Theme = LIGHT) -> Figure | None:
    figure = table.figures(theme)[name]
    if figure is not None:
        figure.set_facecolor("none")
    return figure
