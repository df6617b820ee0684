"""Waiting for processes of others."""

import subprocess

import psutil

from runtimed.cli.processes import wait_for_end


def test_a_process_that_lives_on_is_waited_for_until_the_timeout():
    with subprocess.Popen(["sleep", "60"]) as process:
        assert not wait_for_end(psutil.Process(process.pid), 0.1)
        process.kill()


def test_a_process_that_nobody_reaps_has_ended():
    with subprocess.Popen(["sleep", "60"]) as process:
        process.kill()
        assert wait_for_end(psutil.Process(process.pid), 30.0)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_is_gone_has_ended():
    with subprocess.Popen(["sleep", "60"]) as process:
        watched = psutil.Process(process.pid)
        process.kill()
    assert wait_for_end(watched, 0.0)
