"""Exit codes: the same meaning in every command, listed in every `--help`, and never changed."""

from __future__ import annotations

import errno
import os
import traceback

from service.core.errors import (
    CounterfoilError,
    DedupeConflict,
    DependencyUnavailable,
    EffectNotFound,
    KeyNotFound,
    NotExactlyOnce,
    OperationNotFound,
    SettingsError,
    ValidationError,
)

DONE = 0
ERROR = 1
USAGE = 2
NOTHING_MATCHED = 3
PARTLY_DONE = 4
CONFIRMATION_NEEDED = 5
REFUSED = 6
UNREACHABLE = 7
INTERRUPTED = 130

MEANINGS = (
    "0 done · 1 error · 2 usage or settings · 3 nothing matched · 4 partly done · 5 confirmation needed · "
    "6 refused · 7 dependency unreachable · 130 interrupted"
)

_CODES: tuple[tuple[type[CounterfoilError], int], ...] = (
    (DedupeConflict, REFUSED),
    (EffectNotFound, NOTHING_MATCHED),
    (OperationNotFound, NOTHING_MATCHED),
    (KeyNotFound, NOTHING_MATCHED),
    (DependencyUnavailable, UNREACHABLE),
    (ValidationError, USAGE),
    (NotExactlyOnce, USAGE),
    (SettingsError, USAGE),
)


def code_of(error: BaseException) -> int:
    """The exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ERROR)


def explain(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong in one sentence, on stdout as an object too with `--json`; returns the exit code."""
    from service.cli import talk

    if isinstance(error, BrokenPipeError):  # `counterfoil … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    known = isinstance(error, CounterfoilError)
    sentence = (
        str(error) if known else f"a bug of ours ({type(error).__name__}); COUNTERFOIL_LOG_LEVEL=DEBUG shows where"
    )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        known, sentence = True, f"what was to be written found no room: {error.strerror}"
        as_json = False  # on the same full disk
    if as_json:
        code = error.code if isinstance(error, CounterfoilError) else "internal_error"
        talk.emit({"error": {"code": code, "message": sentence, "field": getattr(error, "field", None)}})
    if not known and os.environ.get("COUNTERFOIL_LOG_LEVEL", "").upper() == "DEBUG":
        talk.say("".join(traceback.format_exception(error)), must=True)
    talk.say(f"counterfoil: {sentence}", style="red", must=True)
    return code_of(error)


def examples(*lines: str) -> str:
    """The epilog of a command's `--help`: examples that run, and the exit codes."""
    return "\n\n".join(("Examples:", *lines, f"Exit codes: {MEANINGS}"))
