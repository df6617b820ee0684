"""Both faces for each test."""

from collections.abc import Iterator
from typing import Any

import pytest

from runtimed import Session
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
def the_kernel(shared_daemon) -> Iterator[str]:
    """The id of a session whose kernel serves both faces."""
    with Session("with a kernel") as session:
        session.start_kernel()
        yield session.notebook_id


@pytest.fixture(scope="module")
def with_kernel(face, the_kernel: str) -> Iterator[Any]:
    """A session with a kernel, for tests that do it no harm."""
    session = face.session(the_kernel)
    session.start_kernel()
    yield session
    session.close()
