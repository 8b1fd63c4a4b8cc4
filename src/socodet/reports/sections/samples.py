"""Proposals, and the views made from them."""

from collections.abc import Sequence

from socodet.reports.drawing import panel_image
from socodet.reports.images import ShownImage
from socodet.reports.page import Gallery, Section
from socodet.reports.panels import proposal_panel, sample_panels
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import SampleSettings

MOST_BOXES = 8
"""Maximum number of proposals drawn on an image."""


def proposal_gallery(images: Sequence[ShownImage], title: str = "") -> Gallery:
    """The images with a few of their proposals."""
    panels = (proposal_panel(image.name, image.pixels, image.boxes, MOST_BOXES) for image in images)
    return Gallery([panel_image(panel, zoom=1.3) for panel in panels], title)


def view_galleries(images: Sequence[ShownImage], settings: SampleSettings, seed: int, title: str = "") -> list[Gallery]:
    """One row per image: its objects, and one random draw of its views."""
    rows: list[Gallery] = []
    for image in images:
        sample = make_sample(image.pixels, image.boxes, settings, sample_rng(seed, 0, image.index))
        panels = sample_panels(image.name, image.pixels, sample)
        rows.append(Gallery([panel_image(panel, 230, 1.4) for panel in panels], "" if rows else title, size="small"))
    return rows


def sample_sections(proposals: Sequence[Gallery], views: Sequence[Gallery]) -> list[Section]:
    """The sections on proposals and on views."""
    return [
        Section(
            "Proposals",
            "Boxes found without labels, from which pretraining takes its objects. Good ones frame things or parts of "
            f"things. At most {MOST_BOXES} are drawn per image, from the largest to the smallest; the command socodet "
            "inspect proposals draws all.",
            proposals,
        ),
        Section(
            "Views",
            "Each object appears in several views, at other scales and positions. It has one colour in all of them, "
            "and its box is labelled with its pyramid level.",
            views,
        ),
    ]
