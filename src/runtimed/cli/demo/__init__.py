"""The demo: three scripts (`notebook`, `agent`, `visitor`) that a `director` runs as processes of their own."""
