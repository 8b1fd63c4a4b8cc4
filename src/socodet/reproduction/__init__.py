"""A benchmark small enough to repeat: what pretraining without labels buys on real pictures, by a fixed protocol."""

from socodet.reproduction.protocol import PROTOCOLS, Method, Protocol
from socodet.reproduction.running import reproduce
from socodet.reproduction.table import Reproduction

__all__ = ["PROTOCOLS", "Method", "Protocol", "Reproduction", "reproduce"]
