"""Live sessions: their documents, events, executions, and the requests to their kernels and browsers."""
