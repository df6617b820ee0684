"""The life cycle of a session as a state table: states, events, reasons and deadlines. Time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["STEPS", "Activity", "Limits", "SessionEvent", "SessionState", "close_reason", "next_deadline", "step"]


class SessionState(Enum):
    """The state of a session. A session that was never started has none."""

    ACTIVE = "active"
    CLOSED = "closed"
    ERROR = "error"
    TIMED_OUT = "timed_out"


class SessionEvent(Enum):
    """An event in a session's life cycle. The value of one that ends the session is the `close_reason`."""

    STARTED = "started"
    STOPPED = "stopped"
    BLOCK_FAILED = "error"
    ABANDONED = "abandoned"
    IDLE_TOO_LONG = "idle_timeout"
    LASTED_TOO_LONG = "max_duration"
    DIED = "died"
    HOST_LOST = "host_lost"


_S = SessionState
_E = SessionEvent
_ENDED: Final[Mapping[SessionEvent, SessionState]] = {_E.STARTED: _S.ACTIVE}

STEPS: Final[Mapping[SessionState | None, Mapping[SessionEvent, SessionState]]] = {
    None: {_E.STARTED: _S.ACTIVE},
    _S.ACTIVE: {
        _E.STOPPED: _S.CLOSED,
        _E.BLOCK_FAILED: _S.CLOSED,
        _E.ABANDONED: _S.CLOSED,
        _E.IDLE_TOO_LONG: _S.TIMED_OUT,
        _E.LASTED_TOO_LONG: _S.TIMED_OUT,
        _E.DIED: _S.ERROR,
        _E.HOST_LOST: _S.ERROR,
    },
    _S.CLOSED: _ENDED,
    _S.ERROR: _ENDED,
    _S.TIMED_OUT: _ENDED,
}
"""State and event → next state; an event that is not listed changes nothing (a second stop, a late death)."""


def step(state: SessionState | None, event: SessionEvent) -> SessionState | None:
    """Return the state after an event, None if the event changes nothing."""
    return STEPS[state].get(event)


def close_reason(event: SessionEvent) -> str | None:
    """Return the `close_reason` of a session that an event ended, None for the event that starts one."""
    return None if event is _E.STARTED else event.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The time limits of a session.

    Attributes:
        timeout_minutes: Idle minutes, None for no limit.
        max_duration_minutes: Minutes since the start, None for no limit.
        ephemeral: Whether it ends after its last peer has left.
        keep_alive: Seconds that an ephemeral session waits for a peer to return.
    """

    timeout_minutes: float | None = None
    max_duration_minutes: float | None = None
    ephemeral: bool = False
    keep_alive: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The activity of a session. Times are Unix seconds.

    Attributes:
        started_at: When it became active.
        used_at: When a peer last used it, or the last execution ended.
        peers: Number of clients.
        left_at: When the last peer left; for a session without any so far, when it became active.
        busy: Whether an execution runs or is queued.
    """

    started_at: float
    used_at: float
    peers: int
    left_at: float
    busy: bool


def next_deadline(limits: Limits, activity: Activity) -> tuple[float, SessionEvent] | None:
    """Return the time of a session's next timeout and its event; None if there is none."""
    deadlines: list[tuple[float, SessionEvent]] = []
    if limits.max_duration_minutes is not None:
        deadlines.append((activity.started_at + 60 * limits.max_duration_minutes, _E.LASTED_TOO_LONG))
    if not activity.busy:
        if limits.timeout_minutes is not None:
            deadlines.append((activity.used_at + 60 * limits.timeout_minutes, _E.IDLE_TOO_LONG))
        if limits.ephemeral and activity.peers == 0:
            deadlines.append((activity.left_at + limits.keep_alive, _E.ABANDONED))
    return min(deadlines, key=lambda deadline: deadline[0], default=None)
