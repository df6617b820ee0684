"""The process that owns one kernel."""
