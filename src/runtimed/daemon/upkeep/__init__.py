"""What is done in the background: old data deleted, documents compacted, memory given back."""
