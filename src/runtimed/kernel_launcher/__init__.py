"""Run by file path: `launch.py` in the kernel's own interpreter, with the standard library and ipykernel only.

`within.py` runs before it, in the host's interpreter, where a kernel has a memory limit. The text of
`program.py` is executed in the kernel, to run a file there.
"""
