"""The bench: `python -m tests.bench` prints the tables of docs/benchmarks.md.

Its figures depend on the day: none is a test.
"""
