"""Annotated datasets, detectors that take the pretrained modules, and their scores."""
