"""B, an agent: joins the kernel while it is busy, looks at a variable, queues a cell of its own, and leaves."""

import re
import sys

from runtimed import Session
from runtimed.texts import without_colours

__all__ = ["main"]

DECADES = """\
rises, decades = {}, {}
for year, mean in means.items():
    decades.setdefault(f"{year[:3]}0s", []).append(mean)
for decade, values in decades.items():
    rises[decade] = (values[-1] - values[0]) / (len(values) - 1)
    print(f"{decade}: {rises[decade]:+.2f} ppm a year")
"""


def main(notebook_id: str) -> None:
    """Join, look, queue, leave."""
    with Session(notebook_id, label="agent") as session:
        status = session.status()
        print(f"joined {notebook_id!r}: kernel {status.kernel_pid} is {status.kernel_status}", flush=True)
        # The kernel answers this while the report goes on.
        facts = without_colours(session.inspect("weeks")["data"]["text/plain"])
        known = dict(re.findall(r"^(Type|Length): +(.*)", facts, flags=re.MULTILINE))
        print(f"its variable `weeks` is a {known['Type']} of length {known['Length']}", flush=True)
        session.queue_cell(session.create_cell(DECADES))
        print("my own cell waits behind the report; I need not wait, and leave", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
