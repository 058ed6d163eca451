"""The version, alone in a file, so that asking for it costs nothing and the build reads it."""

__version__ = "0.1.0"
