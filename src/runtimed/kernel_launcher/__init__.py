"""Runs inside the kernel's own interpreter, by file path."""
