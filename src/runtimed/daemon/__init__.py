"""The process that serves documents, kernels and outputs to everybody."""
