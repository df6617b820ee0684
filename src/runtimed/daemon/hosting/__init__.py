"""The processes that own kernels and browsers: their start, connection, adoption and end."""
