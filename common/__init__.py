"""All that both modes share, so that coordination style is the only variable."""

__version__ = "0.1.0"
