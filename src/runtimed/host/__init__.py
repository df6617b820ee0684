"""The process that owns one kernel: `python -P -m runtimed.host`. The daemon starts it, and it outlives the daemon."""
