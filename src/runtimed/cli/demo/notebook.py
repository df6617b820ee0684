"""A, a person at a notebook: loads the record, and starts a cell that reports year by year."""

import sys

from runtimed import Session

__all__ = ["main"]

LOAD = """\
import csv, time

weeks = {{}}
with open({data!r}) as file:
    for row in csv.DictReader(file):
        if row["co2_ppm"]:
            weeks.setdefault(row["date"][:4], []).append(float(row["co2_ppm"]))
print(f"{{sum(map(len, weeks.values())):,}} measured weeks of CO2, {{min(weeks)}} to {{max(weeks)}}")
"""

REPORT = """\
means, before = {}, None
for number, (year, values) in enumerate(weeks.items(), 1):
    mean = means[year] = sum(values) / len(values)
    change = "" if before is None else f"{mean - before:+5.1f}"
    print(f"{number:2} of {len(weeks)}: {year} {mean:6.1f} ppm {change:5} {'▪' * round((mean - 310) / 2)}")
    before = mean
    time.sleep(0.18)
"""


def main(notebook_id: str, data: str) -> None:
    """Load and report, for as long as this process lives."""
    with Session(notebook_id, label="notebook", max_duration_minutes=5) as session:
        session.start_kernel(env_source="current")
        print(f"started kernel {session.status().kernel_pid}", flush=True)
        print(f"loaded {session.run(LOAD.format(data=data)).stdout}", end="", flush=True)
        for event in session.stream_execute(session.create_cell(REPORT)):
            if event.output is not None:
                print(event.output, end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
