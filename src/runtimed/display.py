"""Shows an output through IPython's display system; without IPython, as plain text on standard output."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtimed.models import Output

__all__ = ["bundle_for_display", "show_output"]

WIDGET_MIME_TYPE = "application/vnd.jupyter.widget-view+json"


def bundle_for_display(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a MIME bundle in the form in which Jupyter's display messages carry it.

    Binary values become base64 text. A widget is left out where another representation exists: a widget
    belongs to the kernel that made it, and cannot live in this one.
    """
    bundle = {
        mime: base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
        for mime, value in data.items()
    }
    if len(bundle) > 1:
        bundle.pop(WIDGET_MIME_TYPE, None)
    return bundle


def show_output(output: Output) -> None:
    """Show one output where the code runs now: notebook, terminal IPython or plain Python."""
    match output.output_type:
        case "stream":
            target = sys.stderr if output.name == "stderr" else sys.stdout
            target.write(output.text or "")
            target.flush()
        case "error":
            print("\n".join(output.traceback) or f"{output.ename}: {output.evalue}", file=sys.stderr, flush=True)
        case _:
            _publish(output)


def _publish(output: Output) -> None:
    from IPython.core.getipython import get_ipython  # heavy, and not needed by scripts
    from IPython.display import display

    if get_ipython() is None:  # type: ignore[no-untyped-call]  # IPython leaves it unannotated
        print(str(output), flush=True)
        return
    display(
        bundle_for_display(output.data or {}),
        metadata=dict(output.metadata),
        raw=True,
    )
