"""Background work: deletes old data, unreferenced blobs, and sessions."""
