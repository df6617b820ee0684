"""Unix sockets, blocking and asyncio, and how the daemon is found and started."""
