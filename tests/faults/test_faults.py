"""Nothing that was acknowledged is lost, whatever dies: seeded rounds of the harness."""

import pytest

from runtimed import Client
from tests.conftest import processes_of, wait_until
from tests.faults.harness import leftovers, run_round


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_doubled_or_run_twice(data_dir, request):
    first, rounds = request.config.getoption("--first-fault"), request.config.getoption("--faults")
    problems: list[str] = []
    for seed in range(first, first + rounds):
        problems += run_round(seed, data_dir)

    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "a process of the test lives on")

    assert problems == []
    assert list(leftovers(data_dir, processes_of)) == []
