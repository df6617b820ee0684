"""The notebook as an Automerge document."""
