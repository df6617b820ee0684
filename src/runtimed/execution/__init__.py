"""Executions, sans I/O: the queue, the translation of Jupyter messages, and the folding of events into outputs."""
