"""Pretrained weights: found, read, matched by name, loaded, and reported."""
