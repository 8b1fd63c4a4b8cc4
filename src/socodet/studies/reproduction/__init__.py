"""A benchmark small enough to repeat: what pretraining without labels buys on real images, by a fixed protocol."""

from socodet.studies.reproduction.protocol import PROTOCOLS, PretrainingMethod, Protocol, ProtocolName
from socodet.studies.reproduction.running import reproduce
from socodet.studies.reproduction.table import Reproduction

__all__ = ["PROTOCOLS", "PretrainingMethod", "Protocol", "ProtocolName", "Reproduction", "reproduce"]
