"""What clients meet: the socket, the peers, and what each of their operations does."""
