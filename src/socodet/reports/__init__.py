"""Figures and the HTML page that show what happened in a run."""
