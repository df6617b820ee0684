"""Runs inside the kernel's own interpreter, by file path: `launch.py` needs the standard library and ipykernel only."""
