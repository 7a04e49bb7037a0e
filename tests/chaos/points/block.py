"""Arms one process to be killed or stopped at its N-th socket or pipe call, and reads which calls it made.

`build` compiles the shim with the machine's compiler; `Block` is the memory that it shares with us. What stands here as
offsets stands in shim.c as structures.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
NO_COMPILER = "no C compiler on PATH (apt-get install gcc): crash points cannot be enumerated"
PATH_VARIABLE = "COUNTERFOIL_TEST_POINT_BLOCK"
OPERATIONS = (
    "connect", "send", "sendto", "sendmsg", "recv", "recvfrom", "recvmsg", "read", "write", "writev",
)  # fmt: skip
HEARS = frozenset({"recv", "recvfrom", "recvmsg", "read"})
CALLS_MAX = 4096
_HEAD_BYTES = 100
_NAMES = (
    "armed", "n", "mode", "child", "main_pid", "count", "fired_pid", "fired_at", "kills", "again", "again_mode",
    "second_at", "epoch",
)  # fmt: skip
_CALLS_AT = 64
_CALL = struct.Struct(f"7i{_HEAD_BYTES}s")
_INT = struct.Struct("i")
_FIELDS = {name: place * _INT.size for place, name in enumerate(_NAMES)}
NEVER = 0  # as n: count only
_UNDER_WAY = -(2**31)


class Mode(IntEnum):
    """What happens at the N-th call."""

    BEFORE = 0
    AFTER = 1
    STOP_BEFORE = 2
    STOP_AFTER = 3


@dataclass(frozen=True)
class Call:
    """One call of the armed process."""

    pid: int
    op: str
    pipe: bool
    fd: int
    port: int
    result: int
    head: bytes

    @property
    def under_way(self) -> bool:
        """A child reads its next order for as long as there is none: there is no moment after that call."""
        return self.result == _UNDER_WAY


class Block:
    """The control block of one run; the process that was started with it looks there at each call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_CALLS_AT + CALLS_MAX * _CALL.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def arm(
        self, pid: int, n: int, mode: Mode, *, child: bool = False, again: int = NEVER, again_mode: Mode = Mode.BEFORE
    ) -> None:
        """From here on the calls of `pid` (or of its children) are counted.

        `again`: after the first kill the next one comes so many calls later, in whoever then makes them.
        """
        self.disarm()
        orders = {"n": n, "mode": mode, "child": child, "main_pid": pid, "again": again, "again_mode": again_mode}
        fresh = dict.fromkeys(("count", "fired_pid", "fired_at", "kills", "second_at"), 0)
        for name, value in {**orders, **fresh, "epoch": self._read("epoch") + 1}.items():
            self._write(name, value)
        self._write("armed", 1)

    def disarm(self) -> None:
        self._write("armed", 0)

    @property
    def count(self) -> int:
        return self._read("count")

    @property
    def fired(self) -> int:
        """The process that was hit, 0 while none was."""
        return self._read("fired_pid")

    @property
    def fired_at(self) -> int:
        """The number of the call at which that was, 0 while there was none."""
        return self._read("fired_at")

    @property
    def kills(self) -> int:
        """How many points were hit since it was armed."""
        return self._read("kills")

    @property
    def second_at(self) -> int:
        """The number of the call at which the second one was hit, counted on from the first; 0 while there was none."""
        return self._read("second_at")

    def calls(self) -> list[Call]:
        """What the armed process has done since it was armed."""
        return [self._call(i) for i in range(min(self.count, CALLS_MAX))]

    def close(self) -> None:
        self._memory.close()

    def _call(self, i: int) -> Call:
        pid, op, pipe, fd, port, result, length, head = _CALL.unpack_from(self._memory, _CALLS_AT + i * _CALL.size)
        return Call(pid, OPERATIONS[op], bool(pipe), fd, port, result, head[: max(0, length)])

    def _read(self, name: str) -> int:
        return int(_INT.unpack_from(self._memory, _FIELDS[name])[0])

    def _write(self, name: str, value: int) -> None:
        _INT.pack_into(self._memory, _FIELDS[name], value)


def build(folder: Path) -> Path:
    """The compiled shim. Ask `compiler()` before."""
    library = folder / "shim.so"
    command = [str(compiler()), "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    made = subprocess.run([*command, str(SOURCE), "-ldl"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return library


def compiler() -> str | None:
    """The machine's C compiler, None if it has none."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
