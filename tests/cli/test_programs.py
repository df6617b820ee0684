"""`runtimed run FILE.py ARG…` beside `python FILE.py ARG…`: what is written, and the exit status, are the same."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed import Session
from tests.cli.conftest import RUNTIMED, Command

pytestmark = pytest.mark.slow

SCRIPTS = {
    "called": '''"""What it is for."""
import os, sys
if __name__ == "__main__":
    print(sys.argv, __file__, __doc__, sys.path[0], os.getcwd(), __spec__, "helper" in globals())
''',
    "values are not printed": "6 * 7\nNone\n",
    "raises": "print('first')\ndef fail():\n    return 1 / 0  # here\nfail()\nprint('never')\n",
    "chained": "try:\n    int('x')\nexcept ValueError as e:\n    raise KeyError('y') from e\n",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])\n",
    "syntax": "print('never')\ndef broken(:\n",
    "exit": "import sys\nprint('out')\nsys.exit(3)\n",
    "exit 0": "raise SystemExit\n",
    "exit beyond a byte": "raise SystemExit(256 + 7)\n",
    "exit with a text": "import sys\nsys.exit('that\\'s it\\nreally')\n",
    "exit with something": "raise SystemExit([1])\n",
    "hook": "import sys\nsys.excepthook = lambda *error: print('mine', error[1], file=sys.stderr)\n1 / 0\n",
    "asked": """print(input('who? '))
print(input())
try:
    input('more? ')
except EOFError as e:
    print('end', e)
""",
    "asked too much": "input()\ninput()\ninput()\n",
    "reads": """import sys
for line in sys.stdin:
    print(repr(line))
print(repr(sys.stdin.read()), sys.stdin.isatty())
""",
    "reads bytes": "import sys\nprint(sys.stdin.buffer.read())\n",
    "writes": """import os, subprocess, sys
print("é", sys.stdout.encoding, sys.stdout.isatty(), flush=True)
sys.stdout.buffer.write("bütes\\n".encode())
sys.stdout.buffer.flush()
sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
sys.stderr.write("to stderr\\n")
""",
    "asyncio": """import asyncio
async def main():
    async with asyncio.timeout(10):
        await asyncio.sleep(0.01)
    return asyncio.current_task().get_name()
print(asyncio.run(main()).startswith("Task-"))
print(asyncio.new_event_loop().run_until_complete(asyncio.sleep(0, 5)))
""",
    "ends": """import atexit, threading, time
@atexit.register
def last():
    print("last")
atexit.register(print, "before")
def work():
    time.sleep(0.1)
    print("worked")
threading.Thread(target=work).start()
print("main is done")
""",
    "pickles": """import pickle, dataclasses, inspect
@dataclasses.dataclass
class Point:
    x: int
print(pickle.loads(pickle.dumps(Point(3))), Point.__module__, inspect.getsource(Point))
""",
    "spawns": """import multiprocessing, sys
def square(x):
    return x * x, sys.argv[1]
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(square, [2, 3]))
""",
    "imports": "import neighbour, sys\nprint(neighbour.NAME, sys.modules['__main__'].__dict__ is globals())\n",
    "warns": "import warnings\nwarnings.warn('old', DeprecationWarning)\n",
    "parses": """import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--wrong", required=True)
parser.parse_args()
""",
    "tests": """import unittest
class Case(unittest.TestCase):
    def test(self):
        self.assertEqual(1, 1)
unittest.main(argv=["x"], exit=True)
""",
    "coded": "# -*- coding: latin-1 -*-\nprint('\xe9', ascii('\xe9'))\n",
    "other line ends": "def f():\r\n    return '''a\r\nb'''\r\nprint(repr(f()))\r\nraise ValueError\r\n",
    "marked": "\ufeffprint('bom')\nraise ValueError\n",
    "closes": "import sys\nprint('x')\nsys.stdout.close()\n",
    "exit()": "print('a')\nexit(3)\nprint('never')\n",
    "quit()": "def leave():\n    quit()\nprint('exit' in globals(), exit)\nleave()\nprint('never')\n",
    "exit with a float": "raise SystemExit(0.0)\n",
    "exit with an empty text": "raise SystemExit('')\n",
    "exit with a text and ends of lines": "raise SystemExit('a\\n\\n')\n",
    "exit with what has no text": """class Odd:
    def __str__(self):
        raise ValueError
raise SystemExit(Odd())
""",
    "exit beyond C": "raise SystemExit(2**70)\n",
    "exit of its own kind": "class Mine(SystemExit):\n    pass\nraise Mine(6)\n",
    "exit in a hook": "import sys\nsys.excepthook = lambda *error: sys.exit(4)\n1 / 0\n",
    "hook fails": "import sys\ndef hook(*error):\n    raise KeyError('hook')\nsys.excepthook = hook\n1 / 0\n",
    "no hook": "import sys\nsys.excepthook = None\n1 / 0\n",
    "ends badly": """import atexit, sys
class Named:
    def __init__(self, function):
        self.function = function
    def __call__(self):
        self.function()
    def __repr__(self):
        return "named"
atexit.register(Named(lambda: print("last")))
atexit.register(Named(lambda: sys.exit(5)))
atexit.register(Named(lambda: 1 / 0))
sys.excepthook = lambda *error: print("not for these")
sys.exit(4)
""",
    "ends badly unseen": """import atexit, sys
sys.unraisablehook = lambda seen: print(repr(seen.exc_value), seen.object is fail)
def fail():
    1 / 0
atexit.register(fail)
""",
    "forks": """import os, signal, sys
def child(end):
    number = os.fork()
    if number == 0:
        end()
        print("child")
        sys.stdout.flush()
        raise SystemExit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)
child(lambda: None)
child(lambda: 1 / 0)
child(lambda: os._exit(7))
child(lambda: os.kill(os.getpid(), signal.SIGINT))
""",
}

DEADLY = {
    "os._exit": "import os, sys\nsys.stderr.write('fatal\\n')\nprint('out', flush=True)\nos._exit(7)\n",
    "os._exit in a thread": "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\n",
    "SIGKILL": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "SIGSEGV": "import ctypes\nctypes.string_at(0)\n",
}
"""What the kernel's own process ends of."""


@pytest.fixture(scope="module")
def kept(shared_daemon: Path) -> Iterator[Session]:
    """A session in which all of them run, one after the other: none must see what another has left behind."""
    with Session("kept") as session:
        session.run(
            "import os, sys; helper_names = set(globals()); "
            "before = sys.path[:], sys.argv[:], os.getcwd(), sys.unraisablehook"
        )
        yield session


STREAMS = ("asked", "asked too much", "reads", "reads bytes", "writes", "closes")
"""What the streams of a real `runtimed` matter to; the others run in this process, which takes a third of the time."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_file_runs_as_python_runs_it(
    name: str, kept: Session, in_process: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "neighbour.py").write_text("NAME = 'neighbour'\n")
    source = SCRIPTS[name]
    (folder / "file.py").write_bytes(source.encode("latin-1" if "latin-1" in source else "utf-8"))
    given = ("a folder/file.py", "--", "--option", "two words", "--", "--session")
    typed = tmp_path / "typed"
    typed.write_bytes("Ann\nbob\xe9".encode())

    def run(*command: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*command, *given], input=typed.read_bytes(), capture_output=True, cwd=tmp_path, timeout=100, check=False
        )
        return as_shell(done.returncode), done.stdout.decode(), done.stderr.decode()

    as_python = run(sys.executable)
    if name in STREAMS:
        as_runtimed = run(*RUNTIMED, "run", "--session", "kept")
    else:
        monkeypatch.chdir(tmp_path)
        with typed.open() as stdin, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            done = in_process("run", "--session", "kept", *given)
        as_runtimed = done.returncode, done.stdout, done.stderr
    if name == "tests":  # it says how long that took
        as_python, as_runtimed = [(*one[:2], one[2].partition(" in ")[0]) for one in (as_python, as_runtimed)]
    assert as_runtimed == as_python
    left = kept.run(
        "print((sys.path, sys.argv, os.getcwd(), sys.unraisablehook) == before, '__file__' in globals(), __doc__)"
    )
    assert left.stdout == kept.run("print(True, False, __doc__)").stdout
    kept.run("for name in set(globals()) - helper_names - {'helper_names', 'before'}: del globals()[name]")


@pytest.mark.parametrize("name", DEADLY)
def test_a_file_that_ends_its_process_has_the_status_that_python_gives(
    name: str, shared_daemon: Path, tmp_path: Path
) -> None:
    (tmp_path / "file.py").write_text(DEADLY[name])
    ran = [
        subprocess.run([*command, "file.py"], capture_output=True, cwd=tmp_path, timeout=100, check=False)
        for command in ([sys.executable], [*RUNTIMED, "run", "--session", "deadly"])
    ]
    as_python, as_runtimed = [(as_shell(one.returncode), one.stdout.decode(), one.stderr.decode()) for one in ran]
    if name.startswith("SIG"):  # the shell that would say so of python is not there to say it of the kernel
        assert as_runtimed[2].startswith(f"KernelDied: The kernel died (killed by {name}")
        as_runtimed = (*as_runtimed[:2], "")
    assert as_runtimed == as_python


def as_shell(code: int) -> int:
    """Return an exit status as a shell has it: of what a signal has killed, 128 and the signal's number."""
    return code if code >= 0 else 128 - code


def test_the_document_and_the_history_have_the_file(kept: Session, tmp_path: Path) -> None:
    source = "answer = 6 * 7\nprint(answer)\n"
    (tmp_path / "file.py").write_text(source)
    done = subprocess.run(
        [*RUNTIMED, "run", "--session", "kept", "file.py"], capture_output=True, cwd=tmp_path, check=True, timeout=100
    )
    assert (done.stdout, done.stderr) == (b"42\n", b"")
    cell = kept.get_cells()[-1]
    assert (cell.source, cell.outputs[0].text) == (source, "42\n")
    assert kept.run("print(In[-2] == In[-2] and answer)").stdout == "42\n"
    assert kept.run("In[-3]").display_data[0].data == {"text/plain": repr(source)}
    # As a cell of the notebook it runs like any other.
    assert kept.execute_cell(cell.id).stdout == "42\n"


def test_standard_input_runs_as_python_runs_it(kept: Session, tmp_path: Path) -> None:
    source = b"import sys\nprint(sys.argv, '__file__' in globals(), sys.path[0])\nprint(sys.stdin.read())\n1 / 0\n"
    ran = [
        subprocess.run([*command, "-", "x"], input=source, capture_output=True, cwd=tmp_path, timeout=100, check=False)
        for command in ([sys.executable], [*RUNTIMED, "run", "--session", "kept"])
    ]
    as_python, as_runtimed = [(one.returncode, one.stdout.decode(), one.stderr.decode()) for one in ran]
    assert as_runtimed == as_python
