"""Notebook files: .ipynb text to cells. Nothing here opens a file."""
