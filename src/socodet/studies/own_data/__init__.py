"""`socodet reproduce own-data`: what pretraining on a set's own images buys, against scratch and other weights."""

from socodet.studies.own_data.protocol import OwnDataSettings, Weights
from socodet.studies.own_data.results import OwnData
from socodet.studies.own_data.running import measure_own_data

__all__ = ["OwnData", "OwnDataSettings", "Weights", "measure_own_data"]
