"""The detectors, one file per family; their classes define everything that differs between them (`Detector`)."""

from typing import TYPE_CHECKING

from socodet.runtime.lazy import lazy_getattr

if TYPE_CHECKING:
    from socodet.detection.detectors.by_name import DETECTORS as DETECTORS
    from socodet.detection.detectors.by_name import detector_named as detector_named
    from socodet.detection.detectors.by_name import new_detector as new_detector
    from socodet.detection.detectors.detector import Detector as Detector
    from socodet.detection.detectors.names import ALIASES as ALIASES
    from socodet.detection.detectors.settings import InferenceSettings as InferenceSettings

__getattr__ = lazy_getattr(__name__)
