"""Pretrain object detectors without labels: object-level contrastive learning (SoCo)."""

__version__ = "0.1.0"
