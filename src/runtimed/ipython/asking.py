"""Time limits of a shell's questions during typing. Such questions start nothing."""

from __future__ import annotations

from typing import Final

__all__ = ["DAEMON_PATIENCE", "KERNEL_PATIENCE"]

DAEMON_PATIENCE: Final = 1.0
"""Seconds that Tab waits for each answer of the daemon."""

KERNEL_PATIENCE: Final = 3.0
"""Seconds that Tab and Shift-Tab wait for the session's kernel, whose first completion imports much."""
