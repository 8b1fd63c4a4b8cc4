"""Annotated datasets in the formats that docs/data.md shows, all read into one form."""
