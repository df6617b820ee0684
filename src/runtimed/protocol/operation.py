"""What all operations have in common, and what their classes say of them, so that nobody keeps lists of them."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

__all__ = ["Edit", "InRoom", "OnSession", "Operation"]


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """Something that one side of a connection asks of the other.

    Attributes:
        is_free_form: Whether a field has any shape; whoever decodes the operation counts its values first.
        is_quick: Whether it takes no time, or ends what does: a host that has too much to do still takes it.
    """

    is_free_form: ClassVar[bool] = False
    is_quick: ClassVar[bool] = False


class OnSession(Operation, frozen=True, kw_only=True):
    """Asked of the daemon about one session. By itself no use of it: its idle time goes on."""

    notebook_id: str


class InRoom(OnSession, frozen=True, kw_only=True):
    """Done in the session's room, which is opened for it.

    Attributes:
        kind: Kind of the sessions of which it can be asked; None for both.
        is_use: Whether it counts as use of the session.
    """

    kind: ClassVar[Literal["kernel", "browser"] | None] = "kernel"
    is_use: ClassVar[bool] = True


class Edit(InRoom, frozen=True, kw_only=True):
    """Changes the document, once for each request, however often that is sent."""
