"""The processes that own kernels and browsers: started, connected to, found again, and buried."""
