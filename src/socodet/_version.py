"""The version, which the package's metadata and every file we write carry."""

__version__ = "0.2.0"
