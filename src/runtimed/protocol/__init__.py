"""What travels between client, daemon and host: bytes to messages and back. Nothing here waits or opens a socket."""
