"""Runs as a tiny program between us and a child: tie the child's life to ours, drop privileges, become the target.

A program of its own instead of `preexec_fn`, because code between fork and exec in a process with threads can
deadlock on a lock some other thread held. It is started by path with `python -I -S`, so it imports nothing but
the standard library. The process id stays the same through each exec: parent → this → (unshare) → server.

    launch.py PARENT_PID DEATH_SIGNAL UID GID -- argv…        (UID and GID: -1 keeps the caller's)
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# <sys/prctl.h>; the interpreter has no name for it before 3.14.
PR_SET_PDEATHSIG = 1
EXIT_ORPHANED = 143
EXIT_NOT_FOUND = 127


def main(argv: list[str]) -> int:
    """Does not return when all goes well: the process becomes the target."""
    parent, death_signal, uid, gid = (int(word) for word in argv[:4])
    target = argv[5:]
    # Everything is imported by now: the account we change to may not be able to read Python's own files.
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After setuid, because the kernel forgets the death signal whenever credentials change.
    _die_with(parent, death_signal)
    # Python ignores these two and exec would hand the ignoring on; a shell's `&` does the same with SIGINT.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(target[0], target)  # noqa: S606 - becoming the target is the point
    except OSError as error:
        sys.stderr.write(f"cannot run {target[0]}: {error.strerror}\n")
        return EXIT_NOT_FOUND


def _die_with(parent: int, death_signal: int) -> None:
    if not sys.platform.startswith("linux"):
        return  # No such thing elsewhere: the next start finds and stops the orphan (orphans.py).
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    # The parent may have died before the line above took hold; then no signal will ever come.
    if os.getppid() != parent:
        os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
