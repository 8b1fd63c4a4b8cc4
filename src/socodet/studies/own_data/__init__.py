"""`socodet reproduce own-data`: the gain from pretraining on a dataset's own images over scratch and other weights."""

from typing import TYPE_CHECKING

from socodet.runtime.lazy import lazy_getattr

if TYPE_CHECKING:
    from socodet.studies.own_data.protocol import OwnDataSettings as OwnDataSettings
    from socodet.studies.own_data.protocol import Weights as Weights
    from socodet.studies.own_data.results import OwnData as OwnData
    from socodet.studies.own_data.running import reproduce_own_data as reproduce_own_data

__getattr__ = lazy_getattr(__name__)
