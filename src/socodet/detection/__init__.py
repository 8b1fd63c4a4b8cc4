"""Detectors that take the pretrained modules."""
