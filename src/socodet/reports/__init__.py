"""Figures and the HTML page about a run."""
