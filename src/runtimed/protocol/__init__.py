"""The wire protocol between client, daemon and host, sans I/O: nothing here waits or opens a socket."""
