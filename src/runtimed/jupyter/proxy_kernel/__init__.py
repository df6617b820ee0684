"""The proxy kernel: a process that speaks Jupyter's protocol to a frontend, and runs its code in a shared session."""
