"""Runs the command many times without importing the world each time: one process that forks a child for each.

A line of JSON on stdin is one run: arguments, environment, and files for its stdin, stdout and stderr; a line on stdout
is its exit code. Only libraries are imported before the fork, and modules of ours that keep no settings.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from typing import NoReturn

import celery.app.amqp
import celery.app.task  # noqa: F401
import kombu.transport.redis  # noqa: F401
import rich.table  # noqa: F401
import stripe  # noqa: F401
import typer.rich_utils  # noqa: F401
import uvicorn  # noqa: F401

import service.api.problems
import service.broker.app
import service.broker.publish
import service.cli.app
import service.cli.checks
import service.cli.supervisor
import service.engine.drive
import service.engine.execute
import service.engine.operations
import service.engine.relay
import service.store.effects
import service.store.schema
import service.telemetry.logs  # noqa: F401
from service.cli import main


def _become(job: dict[str, object]) -> NoReturn:
    """The child: its own files, environment and arguments, then the command as any shell would run it."""
    files = job["files"]
    assert isinstance(files, list)
    for number, (path, flags) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        os.dup2(os.open(path, flags), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(job["env"])  # type: ignore[call-overload]
    sys.argv = ["counterfoil", *job["arguments"]]  # type: ignore[misc]
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking a forked copy of all these libraries apart costs most of a second and proves nothing.
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            _become(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
