"""Settings: what each variable may hold, and the sentence that says so when it holds something else."""

import dataclasses
import math
import os
import subprocess
import sys

import pytest

from runtimed import Client, RuntimedError, Session, default_socket_path
from runtimed.settings import DaemonLimits, read_settings


def test_without_variables_the_limits_are_generous():
    assert read_settings({}).limits == DaemonLimits(
        max_sessions=200,
        max_connections=1000,
        max_request_rate=5000.0,
        max_output_bytes=512 * 2**20,
        keep_days=30.0,
    )
    assert read_settings({}).idle_exit == 600
    assert read_settings({"RUNTIMED_MAX_SESSIONS": " "}).limits == DaemonLimits()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_sessions", "1", 1),
        ("max_connections", "20", 20),
        ("max_request_rate", "2.5", 2.5),
        ("max_request_rate", "none", None),
        ("max_output_bytes", "2000000", 2_000_000),
        ("max_output_bytes", "512M", 512 * 2**20),
        ("max_output_bytes", "1.5 GiB", 3 * 2**29),
        ("max_output_bytes", "2kb", 2048),
        ("max_output_bytes", "7B", 7),
        ("max_output_bytes", "None", None),
        ("keep_days", "0.5", 0.5),
        ("keep_days", "none", None),
        ("max_kernel_memory", "none", None),
    ],
)
def test_a_limit_is_read_from_its_variable(name, text, value):
    assert getattr(read_settings({f"RUNTIMED_{name.upper()}": text}).limits, name) == value


@pytest.mark.parametrize(
    ("variables", "size", "min_memory"),
    [
        ({}, 1, 2**30),
        ({"RUNTIMED_POOL_SIZE": "0", "RUNTIMED_POOL_MIN_MEMORY": "none"}, 0, None),
        ({"RUNTIMED_POOL_MIN_MEMORY": "0"}, 1, 0),
        ({"RUNTIMED_POOL_SIZE": "100", "RUNTIMED_POOL_MIN_MEMORY": "512M"}, 100, 2**29),
    ],
)
def test_the_pool_of_spare_kernels_may_be_empty(variables, size, min_memory):
    settings = read_settings(variables)
    assert (settings.pool_size, settings.pool_min_memory) == (size, min_memory)


BYTES = "a number of bytes such as 2000000, 512M or 1.5G, or `none` for no limit"


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("RUNTIMED_POOL_SIZE", "101", "a whole number from 0 to 100"),
        ("RUNTIMED_POOL_SIZE", "-1", "a whole number from 0 to 100"),
        ("RUNTIMED_IDLE_EXIT", "nonsense", "a number of seconds, not negative"),
        ("RUNTIMED_IDLE_EXIT", "-1", "a number of seconds, not negative"),
        ("RUNTIMED_IDLE_EXIT", "nan", "a number of seconds, not negative"),
        ("RUNTIMED_LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("RUNTIMED_DATA_DIR", "~nobody-of-this-name/x", "a path; there is no home folder of this name"),
        ("RUNTIMED_MAX_SESSIONS", "0", "a whole number, at least 1"),
        ("RUNTIMED_MAX_SESSIONS", "1e3", "a whole number, at least 1"),
        ("RUNTIMED_MAX_CONNECTIONS", "9" * 5000, "a whole number, at least 1"),
        ("RUNTIMED_MAX_REQUEST_RATE", "0.5", "a number of requests a second, at least 1, or `none` for no limit"),
        ("RUNTIMED_MAX_REQUEST_RATE", "inf", "a number of requests a second, at least 1, or `none` for no limit"),
        ("RUNTIMED_MAX_OUTPUT_BYTES", "-5M", BYTES),
        (
            "RUNTIMED_MAX_OUTPUT_BYTES",
            "9" * 400,
            BYTES,
        ),
        ("RUNTIMED_KEEP_DAYS", "0.01", "a number of days, at least 0.05, or `none` to keep everything for ever"),
        ("RUNTIMED_ENV_KEEP_DAYS", "-1", "a number of days, more than 0, or `none` to keep everything for ever"),
        ("RUNTIMED_ENV_MAX_COUNT", "none", "a whole number, at least 1"),
        ("RUNTIMED_ENV_MAX_BYTES", "much", BYTES),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_is_allowed(variable, text, allowed):
    with pytest.raises(RuntimedError) as caught:
        read_settings({variable: text})
    assert caught.value.message == f"{variable} is {text!r}; it must be {allowed}"
    assert (caught.value.variable, caught.value.value) == (variable, text)


DAYS = "RUNTIMED_KEEP_DAYS", "RUNTIMED_ENV_KEEP_DAYS"
SIZES = (
    "RUNTIMED_MAX_OUTPUT_BYTES",
    "RUNTIMED_MAX_KERNEL_MEMORY",
    "RUNTIMED_COMPACT_AFTER_MEMORY",
    "RUNTIMED_ENV_MAX_BYTES",
)
COUNTS = "RUNTIMED_MAX_SESSIONS", "RUNTIMED_MAX_CONNECTIONS", "RUNTIMED_COMPACT_AFTER", "RUNTIMED_ENV_MAX_COUNT"
LIFTED = (*DAYS, *SIZES, "RUNTIMED_MAX_REQUEST_RATE", "RUNTIMED_POOL_MIN_MEMORY")
NUMBERS = (*LIFTED, *COUNTS, "RUNTIMED_POOL_SIZE", "RUNTIMED_IDLE_EXIT")


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "-1", "-0.5", "10 days", "1,5", "1 2", "forever", "0x10", "--", "½"]
)
@pytest.mark.parametrize("variable", NUMBERS)
def test_what_is_no_number_is_refused_with_what_is_accepted(variable, text):
    with pytest.raises(RuntimedError, match=rf"^{variable} is '{text}'; it must be a (whole )?number"):
        read_settings({variable: text})


@pytest.mark.parametrize("text", ["0", "0.0", " 0 ", "-0", "0e5"])
@pytest.mark.parametrize("variable", [*DAYS, *SIZES, *COUNTS, "RUNTIMED_MAX_REQUEST_RATE"])
def test_nothing_is_never_taken_for_everything(variable, text):
    with pytest.raises(RuntimedError, match=rf"^{variable} is '{text.strip()}'; it must be ") as caught:
        read_settings({variable: text})
    assert ("`none`" in caught.value.message) == (variable in LIFTED)


@pytest.mark.parametrize("text", ["none", "None", " NONE ", "\tnone\n"])
@pytest.mark.parametrize("variable", LIFTED)
def test_none_lifts_a_limit(variable, text):
    def lifted(read):
        return [name for name, value in {**as_dict(read), **as_dict(read.limits)}.items() if value is None]

    field = variable.removeprefix("RUNTIMED_").lower()
    assert set(lifted(read_settings({variable: text}))) == {*lifted(read_settings({})), field}


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
@pytest.mark.parametrize("variable", [*NUMBERS, "RUNTIMED_LOG_LEVEL", "RUNTIMED_DATA_DIR", "RUNTIMED_SOCKET_PATH"])
def test_an_empty_variable_is_as_one_that_is_not_set(variable, text):
    assert read_settings({variable: text}) == read_settings({})


def as_dict(values):
    return {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}


def test_a_log_level_may_be_written_in_small_letters():
    assert read_settings({"RUNTIMED_LOG_LEVEL": "debug"}).log_level == "DEBUG"
    assert math.isfinite(read_settings({"RUNTIMED_IDLE_EXIT": "0"}).idle_exit)


@pytest.mark.parametrize(
    "use",
    [lambda: Session("s").connect(), lambda: Client().status(), default_socket_path],
    ids=["connect", "status", "path"],
)
def test_clients_raise_the_sentence(use, short_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "soon")

    with pytest.raises(RuntimedError, match="RUNTIMED_IDLE_EXIT is 'soon'; it must be a number of seconds"):
        use()


@pytest.mark.parametrize("command", [["runtimed", "start"], ["runtimed.daemon"]], ids=["start", "the daemon itself"])
def test_a_daemon_that_cannot_start_says_the_sentence(command, short_folder):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "RUNTIMED_DATA_DIR": str(short_folder), "RUNTIMED_MAX_SESSIONS": "many"},
        capture_output=True,
        text=True,
        check=False,
    )

    sentence = "RUNTIMED_MAX_SESSIONS is 'many'; it must be a whole number, at least 1\n"
    assert sentence in (done.stdout, done.stderr)


def test_the_bounds_of_stored_environments_may_be_lifted():
    read = read_settings({"RUNTIMED_ENV_KEEP_DAYS": "none", "RUNTIMED_ENV_MAX_BYTES": "1.5G"})
    assert (read.env_keep_days, read.env_max_bytes, read.env_max_count) == (None, 3 * 2**29, 100)
