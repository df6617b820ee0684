"""C, anybody, later and from elsewhere: joins by the id, adds a last cell, and shows all outputs there are."""

import sys

from runtimed import Session

__all__ = ["main"]

SUMMARY = """\
print(f"+{max(means.values()) - min(means.values()):.1f} ppm in all; fastest: the {max(rises, key=rises.get)}")
"""


def main(notebook_id: str) -> None:
    """Show what is there, wait for the rest, show everything."""
    with Session(notebook_id, label="visitor") as session:
        report = session.get_cells()[1]
        lines = "".join(map(str, report.outputs)).splitlines()
        print(f"joined {notebook_id!r}: {len(lines)} lines of the report are there; I wait for the rest", flush=True)
        session.run(SUMMARY)  # ends when everything queued before has ended
        for number, cell in enumerate(session.get_cells(), 1):
            for output in cell.outputs:
                for line in str(output).splitlines():
                    print(f"cell {number} | {line}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
