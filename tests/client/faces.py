"""Lets one suite drive both faces: `AsyncSession` answers through an event loop that runs in a thread."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtimed import AsyncClient, AsyncExecution, AsyncSession, Client, Session


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        # Closed transports say goodbye in the next turns of the loop.
        self.run(asyncio.sleep(0.01))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Blocking:
    """An asynchronous object whose coroutines are waited for."""

    def __init__(self, target: Any, loop: LoopThread) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name in ("is_connected", "kernel_started", "env_source"):
            return self._loop.run(value())
        if name in ("sessions", "profiles"):
            return Blocking(value, self._loop)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            async def inside() -> Any:
                result = value(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            result = self._loop.run(inside())
            if hasattr(result, "__anext__"):
                return self._iterate(result)
            return Blocking(result, self._loop) if isinstance(result, AsyncSession | AsyncExecution) else result

        return call

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(aiter(self._target))

    def _iterate(self, events: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run(anext(events))
                except StopAsyncIteration:
                    return
        finally:
            if hasattr(events, "aclose"):
                self._loop.run(events.aclose())

    def __repr__(self) -> str:
        return repr(self._target).removeprefix("Async")

    def __enter__(self) -> "Blocking":
        self._loop.run(self._target.__aenter__())
        return self

    def __exit__(self, *exc: Any) -> None:
        self._loop.run(self._target.__aexit__(*exc))


class SyncFace:
    """Makes `Session` and `Client`."""

    name = "Session"

    def session(self, *args: Any, **kwargs: Any) -> Any:
        return Session(*args, **kwargs)

    def client(self) -> Any:
        return Client()

    def close(self) -> None:
        pass


class AsyncFace:
    """Makes `AsyncSession` and `AsyncClient`, driven from outside."""

    name = "AsyncSession"

    def __init__(self) -> None:
        self._loop = LoopThread()

    def session(self, *args: Any, **kwargs: Any) -> Any:
        return Blocking(AsyncSession(*args, **kwargs), self._loop)

    def client(self) -> Any:
        return Blocking(AsyncClient(), self._loop)

    def close(self) -> None:
        self._loop.close()


def on_one_face(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of what daemon, host and kernel do, whichever face asks: it has kernels of its own, and is slow."""
    one = pytest.mark.parametrize("face", [SyncFace], indirect=True, scope="module", ids=["sync"])
    marked: Callable[..., None] = pytest.mark.slow(one(test))
    return marked
