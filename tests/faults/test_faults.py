"""Nothing that was acknowledged is lost, whatever dies: seeded rounds of the harness."""

import pytest

from runtimed import Client
from tests.conftest import processes_of, wait_until
from tests.faults.checks import leftovers
from tests.faults.harness import Figures, run_round
from tests.faults.strikes import FAULTS, fault_of
from tests.faults.workload import Shell


@pytest.mark.timeout(36_000)
def test_nothing_acknowledged_is_lost_doubled_or_run_twice(data_dir, request, tmp_path, monkeypatch):
    first, rounds = request.config.getoption("--first-fault"), request.config.getoption("--faults") or len(FAULTS)
    seeds = range(first, first + rounds)
    large = [seed for seed in seeds if fault_of(seed).is_large]
    figures, shell = Figures(), Shell(tmp_path)
    # Often enough that strikes land in compactions, too.
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "250")
    try:
        for seed in seeds:
            run_round(seed, data_dir, shell, figures)
        # Whether a process worked on a document just then is up to the system's timing.
        for more in range(1, 4):
            if large and not figures.struck_workers:
                run_round(large[-1] + more * len(FAULTS), data_dir, shell, figures)
    finally:
        shell.close()

    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "a process of the test lives on")
    figures.problems += leftovers(data_dir)

    print(figures)
    assert figures.problems == []
    if large:
        assert figures.struck_workers > 0
