"""Keeps a handful of programs running in one terminal: what dies is started again, what is stopped drains in order.

For `counterfoil up` and `counterfoil demo`; in production systemd or Kubernetes does this. Promises: programs
start in order, each when the one before is ready; each line they print is shown with their name; one Ctrl-C drains
them in reverse order, a second one kills; and however the supervisor dies, they die with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import IO, Self

from service.core.errors import SetupError
from service.embedded.spawn import spawn

OnLine = Callable[[str, str], None]

# A crash is often over at once; a program that cannot run must not eat the machine.
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_CAP_SECONDS = 10.0
# Up for this long, a program counts as healthy and its next crash is a first one again.
HEALTHY_SECONDS = 10.0
_POLL_SECONDS = 0.05
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a shell reports for a program that a second Ctrl-C ended.
EXIT_INTERRUPTED = 130
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")


@dataclass(frozen=True)
class Program:
    """One program. `env` is put on top of ours; `ready` is asked until it returns True."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    restart: bool = True
    ready_seconds: float = 30.0
    stop_seconds: float = 30.0


class Supervisor:
    """Starts, watches and drains programs. Usable as a context manager (no signal handlers) or by `run_forever`."""

    def __init__(self, programs: Sequence[Program], on_line: OnLine | None = None) -> None:
        tell = terminal([program.name for program in programs]) if on_line is None else on_line
        self._keepers = {program.name: _Keeper(program, tell) for program in programs}
        self._signals = 0
        self._failure = 0

    def start(self) -> None:
        """Start all in order, each when the one before is ready. Raises SetupError (all stopped) if one is not."""
        try:
            for name, keeper in self._keepers.items():
                if self._signals:
                    return
                keeper.begin()
                self.wait_ready(name)
        except BaseException:
            self._failure = self._failure or 1
            self.stop()
            raise

    def wait_ready(self, name: str, timeout: float | None = None) -> None:
        """Return when the program runs and its probe says so. Raises SetupError at the deadline."""
        keeper = self._keepers[name]
        seconds = keeper.program.ready_seconds if timeout is None else timeout
        deadline = time.monotonic() + seconds
        while not keeper.ready():
            if self._signals:
                return
            if keeper.over or time.monotonic() > deadline:
                raise SetupError(f"{name} was not ready within {seconds:g} s; its last line: {keeper.last_line!r}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> int:
        """Drain in reverse order and return the exit code: 0 if every program left cleanly, else the first failure."""
        for keeper in reversed(self._keepers.values()):
            code = keeper.end(hurry=lambda: self._signals > 1)
            self._note(EXIT_INTERRUPTED if code and self._signals > 1 else code)
        return self._failure

    def run_forever(self) -> int:
        """Start, run until Ctrl-C, SIGTERM or the failure of a program that is not restarted; drain; exit code."""
        with self._handlers():
            self.start()
            while not self._signals and not self._failure:
                time.sleep(_POLL_SECONDS)
                for keeper in self._keepers.values():
                    self._note(keeper.failure)
            return self.stop()

    def pid(self, name: str) -> int | None:
        """The process id, None while it is down."""
        return self._keepers[name].pid

    def restarts(self, name: str) -> int:
        """How often it was started again."""
        return self._keepers[name].restarts

    def kill(self, name: str, *, group: bool = False) -> None:
        """SIGKILL, to its children too with `group`. It is started again unless it is not to be."""
        self.signal(name, signal.SIGKILL, group=group)

    def signal(self, name: str, sig: int, *, group: bool = False) -> None:
        """Any signal; nothing happens if the program is down."""
        self._keepers[name].send(sig, group=group)

    def _note(self, code: int) -> None:
        self._failure = self._failure or code

    @contextmanager
    def _handlers(self) -> Iterator[None]:
        """The handler only counts: setting an Event there could deadlock with the wait it interrupts."""

        def count(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Keeper:
    """One thread that starts its program, waits for its end, and starts it again; one more reads what it prints."""

    def __init__(self, program: Program, tell: OnLine) -> None:
        self.program = program
        self.restarts = 0
        self.failure = 0
        self.over = False
        self.last_line = ""
        self._tell = tell
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._code = 0
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def ready(self) -> bool:
        if self.pid is None:
            return False
        try:
            return self.program.ready is None or self.program.ready()
        except Exception:  # noqa: BLE001 - whatever a probe stumbles over, the program is not ready yet
            return False

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._keep, name=f"keep {self.program.name}", daemon=True)
        self._thread.start()

    def send(self, sig: int, *, group: bool = False) -> None:
        """Under the lock that reaping takes, so that the number is still our child's."""
        with self._lock:
            if self._process is None:
                return
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self._process.pid, sig)

    def end(self, hurry: Callable[[], bool]) -> int:
        """Stop for good: SIGTERM and patience, SIGKILL for it and its children when that is over. Its exit code."""
        self._stopping.set()
        if self._thread is None:
            return 0
        self.send(signal.SIGTERM)
        deadline = time.monotonic() + self.program.stop_seconds
        while self._thread.is_alive():
            if hurry() or time.monotonic() > deadline:
                self.send(signal.SIGKILL, group=True)
            self._thread.join(_POLL_SECONDS)
        self._thread = None
        # It left because we asked, whether by returning or by letting the signal end it.
        clean = self.failure == 0 and self._code in (0, -signal.SIGTERM)
        return 0 if clean else self.failure or _shell_code(self._code)

    def _keep(self) -> None:
        crashes = 0
        while not self._stopping.is_set():
            born = time.monotonic()
            self._code = self._live()
            if self._stopping.is_set():
                break
            if not self.program.restart:
                self.failure = _shell_code(self._code)
                self._code = 0
                self._say(f"ended with {_ending(self.failure)}")
                break
            crashes = 1 if time.monotonic() - born > HEALTHY_SECONDS else crashes + 1
            pause = min(BACKOFF_FIRST_SECONDS * 2 ** (crashes - 1), BACKOFF_CAP_SECONDS)
            self._say(f"died with {_ending(_shell_code(self._code))}; restart {self.restarts + 1} in {pause:g} s")
            self._code = 0
            if self._stopping.wait(pause):
                break
            self.restarts += 1
        self.over = True

    def _live(self) -> int:
        """One life of the program, from start to reaped; nothing of it is left when this returns."""
        # Unbuffered, because a program that dies must not take its last lines along.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.program.env}
        process = spawn(self.program.argv, env=environment, stdout=subprocess.PIPE)
        with self._lock:
            self._process = process
        if self._stopping.is_set():
            self.send(signal.SIGTERM)  # `end` came while we were starting and found nobody to tell.
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        _await_end(process)
        with self._lock:
            # Children it left behind go before it is reaped: until then its number, and so its group's, is ours.
            # Two generations of a worker must not run side by side.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            self._process = None
            code = process.wait()
        reader.join(1.0)
        return code

    def _read(self, stream: IO[bytes]) -> None:
        try:
            for raw in stream:
                self._say(raw.decode(errors="replace").rstrip("\r\n"))
        finally:
            for _ in stream:  # A listener that failed must not leave the program blocked on a full pipe.
                pass
            stream.close()

    def _say(self, line: str) -> None:
        self.last_line = line
        self._tell(self.program.name, line)


def terminal(names: Sequence[str], stream: IO[str] | None = None) -> OnLine:
    """Prints `name | line`: aligned and in colours on a terminal, plain otherwise. One line at a time."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream or sys.stdout, soft_wrap=True, highlight=False)
    width = max((len(name) for name in names), default=0)
    lock = threading.Lock()
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}

    def coloured(name: str, line: str) -> None:
        prefix = Text(f"{name:<{width}} | ", style=colours.get(name, "white"))
        console.print(prefix.append_text(Text.from_ansi(line)))

    def plain(name: str, line: str) -> None:
        with lock:
            console.file.write(f"{name} | {line}\n")
            console.file.flush()

    return coloured if console.is_terminal else plain


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Return when it ended, without reaping it where the system can do that (macOS cannot before Python 3.13)."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def _shell_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _ending(code: int) -> str:
    if code <= 128:
        return f"code {code}"
    with suppress(ValueError):
        return signal.Signals(code - 128).name
    return f"code {code}"
