"""The process that owns one kernel: `python -P -m runtimed.host`, started by the daemon, and outliving it."""
