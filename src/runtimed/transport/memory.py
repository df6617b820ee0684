"""Two sides of a connection joined in memory: nothing moves but what is asked to, in pieces of any size."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from runtimed.protocol.connection import AskingEvent, AskingSide, ServingEvent, ServingSide
from runtimed.protocol.operation import Operation

__all__ = ["MemoryPair"]

A = TypeVar("A")
S = TypeVar("S")
OperationT = TypeVar("OperationT", bound=Operation[Any])


class MemoryPair(Generic[A, OperationT, S]):
    """An asking and a serving side, and the bytes on their way from one to the other.

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
        """Bring the serving side what the asking side has sent, and give the events.

        Args:
            size: Bytes to bring at most; all if None.
        """
        self._to_serving += b"".join(self.asking.data_to_send())
        return list(self.serving.receive_data(_take(self._to_serving, size)))

    def answer(self, size: int | None = None) -> list[AskingEvent[A]]:
        """Bring the asking side what the serving side has sent, and give the events; `size` as in `serve`."""
        self._to_asking += b"".join(self.serving.data_to_send())
        return list(self.asking.receive_data(_take(self._to_asking, size)))

    @property
    def on_its_way(self) -> int:
        """Bytes that were sent and have not arrived."""
        return len(self._to_serving) + len(self._to_asking)

    def cut(self, reason: str = "") -> tuple[list[AskingEvent[A]], list[ServingEvent[OperationT, S]]]:
        """End the connection under both sides; what is on its way is lost."""
        self._to_serving.clear()
        self._to_asking.clear()
        return self.asking.receive_eof(reason), self.serving.receive_eof(reason)


def _take(pipe: bytearray, size: int | None) -> bytes:
    taken = bytes(pipe[:size])
    del pipe[:size]
    return taken
