"""Drawing the colours of a view: BYOL's augmentation (Grill et al. 2020, appendix B), without its crop."""

from dataclasses import dataclass

import numpy as np

from socodet.views.settings import PhotometricSettings

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True)
class Photometric:
    """The colour augmentation of one view, applied in this order: jitter, grayscale, blur, solarize."""

    jittered: bool
    """Whether brightness, contrast, saturation and hue are changed."""
    order: tuple[int, ...]
    """The order of these changes: a permutation of (BRIGHTNESS, CONTRAST, SATURATION, HUE)."""
    brightness: float
    """Factor of every value."""
    contrast: float
    """Factor of the distance to the mean grey value."""
    saturation: float
    """Factor of the distance to the pixel's own grey value."""
    hue: float
    """Rotation of the hue, in full circles."""
    grayscale: bool
    """Whether the colours are dropped."""
    blur_sigma: float | None
    """Standard deviation of the Gaussian, pixels; None without blur."""
    solarize_threshold: float | None
    """Values from this one up are inverted; None without solarize."""


UNCHANGED = Photometric(False, (0, 1, 2, 3), 1.0, 1.0, 1.0, 0.0, False, None, None)


def draw_photometric(settings: PhotometricSettings, rng: np.random.Generator) -> Photometric:
    """Draws an augmentation by the settings; always takes thirteen uniform numbers from `rng`."""
    u = rng.random(13).tolist()
    low, high = settings.blur_sigma
    return Photometric(
        jittered=u[0] < settings.jitter_probability,
        order=tuple(sorted(range(4), key=u[1:5].__getitem__)),
        brightness=1 + settings.brightness * (2 * u[5] - 1),
        contrast=1 + settings.contrast * (2 * u[6] - 1),
        saturation=1 + settings.saturation * (2 * u[7] - 1),
        hue=settings.hue * (2 * u[8] - 1),
        grayscale=u[9] < settings.grayscale_probability,
        blur_sigma=low + (high - low) * u[11] if u[10] < settings.blur_probability else None,
        solarize_threshold=settings.solarize_threshold if u[12] < settings.solarize_probability else None,
    )
