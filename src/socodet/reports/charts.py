"""What all charts of a page have in common."""

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from socodet.reports.page import PageImage
from socodet.reports.theme import DARK, LIGHT, Theme, blank_figure, style_axes, to_png

WIDTH, HEIGHT, CHART_DPI = 800, 480, 160
LETTERS = 11  # points


def light_and_dark(draw: Callable[..., Figure | None], title: str, caption: str, alt: str) -> list[PageImage]:
    """A chart for light and for dark pages; none if there is nothing to draw."""
    light, dark = draw(theme=LIGHT), draw(theme=DARK)
    if light is None or dark is None:
        return []
    return [PageImage(to_png(light), alt=alt, title=title, caption=caption, dark=to_png(dark))]


def chart(theme: Theme, x: str = "step", panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with vertically stacked panels that share an axis labelled `x`."""
    figure = blank_figure(WIDTH, HEIGHT if panels == 1 else HEIGHT * (1 + panels) // 3, dpi=CHART_DPI)
    figure.set_layout_engine("constrained")
    every = [*figure.subplots(panels, sharex=True, squeeze=False).flat]
    for axes in every:
        style_axes(axes, theme, LETTERS)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=x == "step", steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5 if panels == 1 else 3, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        axes.margins(x=0.01)
    every[-1].set_xlabel(x, color=theme.muted, size=LETTERS)
    return figure, every


def cycle(theme: Theme, count: int) -> list[str]:
    """Line colours for `count` lines."""
    return [theme.series[k % len(theme.series)] for k in range(count)]


def _tick(value: float, _position: int | None) -> str:
    return f"{value:.6g}".replace("-", "−")
