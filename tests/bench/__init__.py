"""The bench: `python -m tests.bench` prints the table of the README. Its figures depend on the day: none is a test."""
