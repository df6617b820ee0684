"""Connections: Unix sockets, a child process's standard streams, memory; and how the daemon is found and started."""
