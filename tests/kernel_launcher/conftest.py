"""The hosts of tests/host: a launcher is seen best where it is used."""

from tests.host.conftest import host, root, start_host

__all__ = ["host", "root", "start_host"]
