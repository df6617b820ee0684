"""Nothing that was acknowledged is lost, whatever dies: seeded rounds of the harness."""

from pathlib import Path

import pytest

from runtimed import Client
from tests.conftest import processes_of, wait_until
from tests.faults.checks import leftovers
from tests.faults.harness import Figures, run_round
from tests.faults.strikes import FAULTS, fault_of
from tests.faults.workload import Shell


def struck_loads(folder: Path) -> int:
    """How often a daemon found that the one before had died while it loaded a notebook."""
    return sum(
        path.read_text().count("a process of its own has loaded the notebook") for path in folder.glob("daemon.log*")
    )


@pytest.mark.timeout(36_000)
def test_nothing_acknowledged_is_lost_doubled_or_run_twice(data_dir, request, tmp_path, monkeypatch):
    first, rounds = request.config.getoption("--first-fault"), request.config.getoption("--faults") or len(FAULTS)
    seeds = range(first, first + rounds)
    loads = [seed for seed in seeds if fault_of(seed).is_large]
    figures, shell = Figures(), Shell(tmp_path)
    # Often enough that strikes land in compactions, too.
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "250")
    try:
        for seed in seeds:
            run_round(seed, data_dir, shell, figures)
        # Whether what strikes during loads has struck one is up to the system's timing.
        for more in range(1, 4):
            if loads and not struck_loads(data_dir):
                run_round(loads[-1] + more * len(FAULTS), data_dir, shell, figures)
    finally:
        shell.close()

    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "a process of the test lives on")
    figures.problems += leftovers(data_dir)

    figures.struck_loads = struck_loads(data_dir)
    print(figures)
    assert figures.problems == []
    if loads:
        assert figures.struck_loads > 0
