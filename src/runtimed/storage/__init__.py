"""SQLite databases, blobs and the host's spool: everything that must survive a process is stored here.

Calls are synchronous and short enough for the thread of an event loop. Only a checkpoint waits for the disk to sync
(see `database`). Nothing here opens a socket.
"""
