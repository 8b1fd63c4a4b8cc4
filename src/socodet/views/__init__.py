"""From an image and its proposals to the views of section 3.2: geometry, rendering, samples, batches."""

from typing import TYPE_CHECKING

from socodet.runtime.lazy import lazy_getattr

if TYPE_CHECKING:
    from socodet.views.rendering import warm_up as warm_up
    from socodet.views.sample import Sample as Sample
    from socodet.views.sample import make_sample as make_sample
    from socodet.views.sample import sample_rng as sample_rng
    from socodet.views.settings import PhotometricSettings as PhotometricSettings
    from socodet.views.settings import SampleSettings as SampleSettings
    from socodet.views.settings import ViewSettings as ViewSettings

__getattr__ = lazy_getattr(__name__)
