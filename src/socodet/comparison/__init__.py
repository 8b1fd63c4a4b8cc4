"""Fine-tuning from several first weights under one protocol: who comes further, how soon, and with how few labels."""

from socodet.comparison.protocol import Init, named_inits
from socodet.comparison.running import compare
from socodet.comparison.table import Comparison

__all__ = ["Comparison", "Init", "compare", "named_inits"]
