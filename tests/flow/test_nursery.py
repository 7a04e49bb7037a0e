"""What the nursery says of a program is about this program, on a machine that has started thousands before it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.flow.nursery import Nursery
from tests.flow.waiting import until

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
# Another process of the machine may take the number that was meant for ours.
_TRIES = 200


@pytest.fixture
def own_nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def test_a_process_id_that_comes_again_is_a_program_that_runs(own_nursery: Nursery, tmp_path: Path) -> None:
    """It was said to have ended by itself, and could not be killed, once the numbers had come round in a long run."""
    if not os.access(_LAST_PID, os.W_OK):
        pytest.skip(f"needs root, to write {_LAST_PID}")
    first = _ended(own_nursery, tmp_path)
    for _ in range(_TRIES):
        _LAST_PID.write_text(str(first - 1))
        again = own_nursery.start("http.server", ["--bind", "127.0.0.1", "0"], dict(os.environ), tmp_path / "log")
        runs = own_nursery.exit_code(again) is None
        os.kill(again, signal.SIGKILL)
        if again == first:
            break
        until(lambda pid=again: own_nursery.exit_code(pid) is not None, "it is reaped")  # type: ignore[misc]
    else:
        pytest.skip(f"{first} was never free")
    assert runs
    until(lambda: own_nursery.exit_code(again) == -signal.SIGKILL, "its own end is told")


def test_a_program_is_ended_by_a_signal_that_the_runs_shell_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell without job control starts what stands before a `&` with SIGINT and SIGQUIT ignored."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        nursery = Nursery()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    try:
        pid = nursery.start("http.server", ["--bind", "127.0.0.1", "0"], dict(os.environ), tmp_path / "log")

        def quitted() -> bool:
            """Again and again: the first may come before the program has the signal's default back."""
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
            return nursery.exit_code(pid) is not None

        until(quitted, "it has ended")
        assert nursery.exit_code(pid) == -signal.SIGQUIT
    finally:
        nursery.close()


def _ended(nursery: Nursery, folder: Path) -> int:
    pid = nursery.start("http.server", ["--bind", "127.0.0.1", "0"], dict(os.environ), folder / "log")
    os.kill(pid, signal.SIGKILL)
    until(lambda: nursery.exit_code(pid) is not None, "it has ended")
    return pid
