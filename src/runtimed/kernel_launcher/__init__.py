"""Run by file path: `launch.py` in the kernel's own interpreter, with the standard library and ipykernel only.

`within.py` runs before it, in the host's interpreter, where a kernel has a memory limit.
"""
