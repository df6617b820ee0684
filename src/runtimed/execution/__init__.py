"""Executions: the queue, and events folded into outputs. Nothing here waits."""
