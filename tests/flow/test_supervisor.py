"""What `up` and `demo` rely on: order, restarts with a growing pause, drains, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service.cli.supervisor import Program, Supervisor, terminal
from service.core.errors import SetupError

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 20.0

PATIENT = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (print('draining'), sys.exit(0)))\nprint('up')\nwhile True: time.sleep(0.05)"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\nwhile True: time.sleep(0.05)"
)


def python(name: str, code: str, **options: object) -> Program:
    return Program(name, [sys.executable, "-c", code], **options)  # type: ignore[arg-type]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class Lines(list[tuple[str, str]]):
    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))

    def has(self, name: str, line: str) -> bool:
        return (name, line) in self


def test_programs_start_in_order_each_when_the_one_before_is_ready(tmp_path: Path):
    flag = tmp_path / "ready"
    lines = Lines()
    first = python(
        "first",
        f"import pathlib, time; time.sleep(.2); pathlib.Path({str(flag)!r}).touch(); time.sleep(60)",
        ready=flag.exists,
    )
    second = python(
        "second",
        f"import pathlib; print(pathlib.Path({str(flag)!r}).exists(), flush=True); import time; time.sleep(60)",
    )
    with Supervisor([first, second], lines):
        until(lambda: lines.has("second", "True"), "the second program saw the first one ready")


def test_a_program_that_is_never_ready_stops_everything_with_its_last_line():
    lines = Lines()
    supervisor = Supervisor(
        [
            python("good", PATIENT),
            python("bad", "print('port taken'); import time; time.sleep(60)", ready=lambda: False, ready_seconds=1),
        ],
        lines,
    )
    with pytest.raises(SetupError, match="bad was not ready within 1 s; its last line: 'port taken'"):
        supervisor.start()
    assert supervisor.pid("good") is None


def test_what_is_killed_is_started_again_and_counted():
    lines = Lines()
    with Supervisor([python("worker", PATIENT)], lines) as supervisor:
        before = supervisor.pid("worker")
        supervisor.kill("worker")
        until(lambda: supervisor.pid("worker") not in (None, before), "a new process")
        supervisor.wait_ready("worker")
        assert supervisor.restarts("worker") == 1
        assert ("worker", "died with SIGKILL; restart 1 in 0.2 s") in lines


def test_the_pause_between_restarts_doubles():
    lines = Lines()
    with Supervisor([python("crash", "raise SystemExit(3)")], lines) as supervisor:
        until(lambda: supervisor.restarts("crash") >= 3, "three restarts")
    pauses = [match[1] for _, line in lines if (match := re.search(r"died with code 3; restart \d+ in (.*) s", line))]
    assert pauses[:3] == ["0.2", "0.4", "0.8"]


def test_a_drain_goes_in_reverse_order_and_is_clean():
    lines = Lines()
    supervisor = Supervisor([python(name, PATIENT) for name in ("one", "two", "three")], lines)
    supervisor.start()
    until(lambda: sum(line == "up" for _, line in lines) == 3, "all up")
    assert supervisor.stop() == 0
    assert [name for name, line in lines if line == "draining"] == ["three", "two", "one"]


def test_who_ignores_the_drain_is_killed_at_its_deadline_and_the_exit_code_tells():
    lines = Lines()
    supervisor = Supervisor([python("deaf", STUBBORN, stop_seconds=0.3)], lines)
    supervisor.start()
    until(lambda: lines.has("deaf", "up"), "it ignores SIGTERM by now")
    assert supervisor.stop() == 128 + signal.SIGKILL


def test_a_failure_while_draining_is_the_exit_code():
    lines = Lines()
    code = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nprint('up')\nwhile True: time.sleep(0.05)"
    supervisor = Supervisor([python("bad", code), python("good", PATIENT)], lines)
    supervisor.start()
    until(lambda: lines.has("bad", "up") and lines.has("good", "up"), "both up")
    assert supervisor.stop() == 7


def test_children_of_a_killed_program_do_not_outlive_it():
    lines = Lines()
    code = "import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nprint(child.pid)\ntime.sleep(600)"
    with Supervisor([python("parent", code)], lines) as supervisor:
        until(lambda: lines, "the child's number")
        supervisor.kill("parent")
        until(lambda: gone(int(lines[0][1])), "the child is gone")


def test_each_line_carries_the_name_of_its_program(capsys: pytest.CaptureFixture[str]):
    tell = terminal(["api", "worker"])
    tell("api", '{"event": ":smile: [bold]"}')
    assert capsys.readouterr().out == 'api | {"event": ":smile: [bold]"}\n'


MAIN = """
import sys
sys.path.insert(0, {root!r})
from service.cli.supervisor import Program, Supervisor
programs = [Program(f"p{{n}}", [sys.executable, "-c", {code!r}], stop_seconds=60) for n in (1, 2)]
supervisor = Supervisor(programs)
sys.exit(supervisor.run_forever())
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Terminal:
    """The supervisor as `counterfoil up` runs it: a process of its own."""

    def __init__(self, code: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(MAIN).format(root=str(ROOT), code=code)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        until(lambda: all(f"p{n} | up" in log.read_text() for n in (1, 2)), "both programs up")
        self.children = [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        assert len(self.children) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_stop_signal_drains_and_exits_with_zero(number: int, tmp_path: Path):
    terminal = Terminal(PATIENT, tmp_path / "log")
    terminal.process.send_signal(number)
    assert terminal.process.wait(PATIENCE_SECONDS) == 0
    drained = re.findall(r"(p\d) \| draining", terminal.log.read_text())
    assert drained == ["p2", "p1"]
    assert all(gone(pid) for pid in terminal.children)


def test_a_second_stop_signal_kills(tmp_path: Path):
    terminal = Terminal(STUBBORN, tmp_path / "log")
    terminal.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # They do not listen, and we would wait a minute for them.
        terminal.process.wait(0.5)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(PATIENCE_SECONDS) == 130
    assert all(gone(pid) for pid in terminal.children)


def test_kill_9_of_the_supervisor_leaves_no_program_behind(tmp_path: Path):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux ends children with their parent")
    terminal = Terminal(STUBBORN, tmp_path / "log")
    os.kill(terminal.process.pid, signal.SIGKILL)
    terminal.process.wait()
    until(lambda: all(gone(pid) for pid in terminal.children), "the programs are gone")
