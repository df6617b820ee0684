"""The process that reads and writes notebook files for the daemon; see `daemon.upkeep.autosave`."""
