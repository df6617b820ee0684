"""Live sessions that notebooks, scripts and agents share, and that outlive them all."""

__version__ = "0.1.0"
