"""The sessions as the daemon serves them: documents, events, executions, and what is asked of kernels and browsers."""
