"""Experiments that consist of many runs: comparisons, ablations, reproductions."""
