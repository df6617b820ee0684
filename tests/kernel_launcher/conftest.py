"""The hosts of tests/host: a launcher is seen best where it is used."""

from tests.host.conftest import root, shared_host, shared_root, start_host

__all__ = ["root", "shared_host", "shared_root", "start_host"]
