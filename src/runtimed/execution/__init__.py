"""What becomes of an execution: the queue, and events folded into outputs. Nothing here waits."""
