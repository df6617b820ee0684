"""What is printed: for people without tricks, for programs as JSON."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from runtimed import ExecutionEvent, Output
from runtimed.cli.as_json import jsonable, print_json
from runtimed.cli.printing import ago, short_duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_durations_are_short(seconds: float, said: str):
    assert short_duration(timedelta(seconds=seconds)) == said


def test_moments_are_told_from_now():
    assert ago(datetime.now(UTC) - timedelta(hours=5, minutes=1)) == "5 h ago"


def test_public_values_become_json(capsys: pytest.CaptureFixture[str]):
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    print_json(
        {
            "event": ExecutionEvent(
                event_type="output",
                output=Output(output_type="display_data", data={"image/png": b"\x00\xff", "application/json": [1.5]}),
            ),
            "moment": moment,
            "duration": timedelta(minutes=1),
            "odd": [float("nan"), float("inf"), "\x1b\ud800é", (1,), None, True, {1: 2}],
        }
    )
    printed = capsys.readouterr().out
    assert printed.isascii()
    loaded = json.loads(printed)
    assert loaded["event"]["output"]["data"] == {"image/png": "AP8=", "application/json": [1.5]}
    assert loaded["moment"] == "2026-01-02T00:00:00+00:00"
    assert loaded["duration"] == 60.0
    assert loaded["odd"] == [None, None, "\x1b\ud800é", [1], None, True, {"1": 2}]


def test_what_json_does_not_know_becomes_text():
    assert jsonable(1j) == "1j"
