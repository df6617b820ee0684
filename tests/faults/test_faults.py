"""Nothing that was acknowledged is lost, whatever dies: seeded rounds of the harness."""

import pytest

from runtimed import Client
from tests.conftest import processes_of, wait_until
from tests.faults.checks import leftovers
from tests.faults.harness import Figures, run_round
from tests.faults.strikes import fault_of
from tests.faults.workload import Shell


@pytest.mark.timeout(36_000)
def test_nothing_acknowledged_is_lost_doubled_or_run_twice(data_dir, request, tmp_path, monkeypatch):
    first, rounds = request.config.getoption("--first-fault"), request.config.getoption("--faults")
    figures, shell = Figures(), Shell(tmp_path)
    # Often enough that strikes land in compactions, too.
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "250")
    try:
        for seed in range(first, first + rounds):
            run_round(seed, data_dir, shell, figures)
    finally:
        shell.close()

    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "a process of the test lives on")
    figures.problems += leftovers(data_dir)

    figures.struck_loads = sum(
        path.read_text().count("a process of its own has loaded the notebook") for path in data_dir.glob("daemon.log*")
    )
    print(figures)
    assert figures.problems == []
    if any(fault_of(seed).is_large for seed in range(first, first + rounds)):
        assert figures.struck_loads > 0
