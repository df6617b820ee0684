"""Both faces for each test."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.client.faces import AsyncFace, SyncFace


@pytest.fixture(scope="module", params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest, shared_daemon) -> Iterator[Any]:
    """One of the two faces of the client."""
    face = request.param()
    yield face
    face.close()


@pytest.fixture
def session(face, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A connected session without a kernel, stopped afterwards."""
    session = face.session(f"{request.node.name}")
    session.connect()
    yield session
    session.connect()
    session.stop()


@pytest.fixture(scope="module")
def with_kernel(face) -> Iterator[Any]:
    """A session with a kernel, for tests that do it no harm."""
    session = face.session("with a kernel")
    session.start_kernel()
    yield session
    session.connect()
    session.stop()
