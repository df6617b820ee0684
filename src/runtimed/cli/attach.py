"""The commands `exec`, which runs code in a session, and `attach`, which shows a session's running code."""

from __future__ import annotations

import argparse
import sys

from runtimed.cli.as_json import print_json
from runtimed.cli.exits import Exit
from runtimed.cli.follow import Follower, uninterrupted
from runtimed.cli.printing import complain, say
from runtimed.cli.reach import find_execution, find_notebook, reach
from runtimed.cli.run import result_as_map, start_kernel

__all__ = ["attach", "exec_"]


def exec_(arguments: argparse.Namespace) -> int:
    """Run code as a new cell of an existing session."""
    code = sys.stdin.read() if arguments.code == "-" else arguments.code
    client = reach("exec")
    found = find_notebook(client, arguments.id)
    with client.Session(found.session_id) as session:
        # Only the start of a kernel needs the folder of this process.
        if not session.kernel_started:
            start_kernel(session)
        with uninterrupted():
            execution = session.submit(code=code)
        follower = Follower(session, quiet=arguments.json)
        with follower.interrupts([execution]):
            status = follower.follow(execution, arguments.timeout)
            if arguments.json and status != Exit.TIMED_OUT:
                print_json(result_as_map(session.notebook_id, execution.wait(None), status))
    return Exit.INTERRUPTED if follower.interrupted else status


def attach(arguments: argparse.Namespace) -> int:
    """Show the outputs of an execution, the past ones first, until it ends."""
    client = reach("attach")
    found = find_notebook(client, arguments.id)
    if arguments.execution is not None:
        execution_id = find_execution(client, found.session_id, arguments.execution)
        (chosen,) = client.sessions.find_executions(found.session_id, execution_id)
    else:
        unfinished = client.sessions.find_executions(found.session_id)
        latest = unfinished or client.sessions.find_executions(found.session_id, "")
        if not latest:
            say(f"Nothing ran in the session {found.session_id!r}")
            return Exit.OK
        chosen = latest[0]
    with client.Session(found.session_id) as session:
        follower = Follower(session, program=chosen.program, asks=False)
        try:
            return follower.follow(session.execution(chosen.execution_id), arguments.timeout)
        except KeyboardInterrupt:
            complain("\nLeft what goes on; `runtimed interrupt` and the session's id interrupt it")
            return Exit.INTERRUPTED
