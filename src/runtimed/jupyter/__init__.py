"""What Jupyter's own programs load or start: kernels for any frontend."""
