"""Two sides of a connection joined in memory: bytes move only when asked to, in pieces of any size."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from runtimed.protocol.connection import AskingEvent, AskingSide, ServingEvent, ServingSide
from runtimed.protocol.operation import Operation

__all__ = ["MemoryPair"]

A = TypeVar("A")
S = TypeVar("S")
OperationT = TypeVar("OperationT", bound=Operation[Any])


class MemoryPair(Generic[A, OperationT, S]):
    """An asking and a serving side, and the bytes in flight between them.

    Attributes:
        asking: The side that connects.
        serving: The side that listens.
    """

    def __init__(self, asking: AskingSide[A], serving: ServingSide[OperationT, S]) -> None:
        self.asking = asking
        self.serving = serving
        self._to_serving = bytearray()
        self._to_asking = bytearray()

    def serve(self, size: int | None = None) -> list[ServingEvent[OperationT, S]]:
        """Deliver the asking side's bytes to the serving side, and return the events.

        Args:
            size: Largest number of bytes to deliver; None for all.
        """
        self._to_serving += b"".join(self.asking.data_to_send())
        return list(self.serving.receive_data(_take(self._to_serving, size)))

    def answer(self, size: int | None = None) -> list[AskingEvent[A]]:
        """Deliver the serving side's bytes to the asking side, and return the events; `size` as in `serve`."""
        self._to_asking += b"".join(self.serving.data_to_send())
        return list(self.asking.receive_data(_take(self._to_asking, size)))

    @property
    def on_its_way(self) -> int:
        """Bytes in flight in both directions."""
        return len(self._to_serving) + len(self._to_asking)

    def cut(self, reason: str = "") -> tuple[list[AskingEvent[A]], list[ServingEvent[OperationT, S]]]:
        """Break the connection for both sides; bytes in flight are lost."""
        self._to_serving.clear()
        self._to_asking.clear()
        return self.asking.receive_eof(reason), self.serving.receive_eof(reason)


def _take(pipe: bytearray, size: int | None) -> bytes:
    taken = bytes(pipe[:size])
    del pipe[:size]
    return taken
