"""Fine-tuning from several first weights under one protocol: who comes further, how soon, and with how few labels."""

from socodet.studies.comparison.protocol import Init, named_inits
from socodet.studies.comparison.running import compare
from socodet.studies.comparison.table import Comparison

__all__ = ["Comparison", "Init", "compare", "named_inits"]
