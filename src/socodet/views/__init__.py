"""From an image and its proposals to the views of section 3.2: geometry, rendering, samples, batches."""

from socodet.views.rendering import warm_up
from socodet.views.sample import Sample, make_sample, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

__all__ = [
    "PhotometricSettings",
    "Sample",
    "SampleSettings",
    "ViewSettings",
    "make_sample",
    "sample_rng",
    "warm_up",
]
