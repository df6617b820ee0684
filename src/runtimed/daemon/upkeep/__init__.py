"""Background work: deletes old data, compacts documents, returns memory to the system."""
