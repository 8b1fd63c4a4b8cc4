"""Selective search (Uijlings et al. 2013): segmentation, then grouping of regions."""
