"""SQLite databases, blobs and the host's spool: what was acknowledged stays."""
