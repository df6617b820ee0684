"""How scripts join a session."""
