"""A benchmark small enough to repeat: what pretraining without labels buys on real pictures, by a fixed protocol."""

from socodet.studies.reproduction.protocol import PROTOCOLS, Method, Protocol
from socodet.studies.reproduction.running import reproduce
from socodet.studies.reproduction.table import Reproduction

__all__ = ["PROTOCOLS", "Method", "Protocol", "Reproduction", "reproduce"]
