"""`counterfoil api | relay | worker | beat`: one program each, in the foreground, until a stop signal; then exit 0.

The worker becomes Celery itself (exec): its flags mean what its manual says, and a pool that must patch the process
before anything is imported (gevent) can.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

BEAT_SECONDS = 1  # between looks at the schedule, and so the longest a stop signal waits
FORK_PROCESSES = 4  # a prefork child performs `slots` effects at a time as well: processes are for isolation

# Celery warns root at length because of pickle, which no message of ours may hold.
_QUIET = ("-W", "ignore:You're running the worker with superuser")

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
CONTEXTS: dict[str, dict[str, Any]] = {"api": {}, "relay": {}, "worker": _PASS_ON, "beat": {}}
EXAMPLES = {
    "api": (
        "counterfoil api",
        "counterfoil api --port 0",
        "COUNTERFOIL_API_HOST=0.0.0.0 COUNTERFOIL_API_OPEN=true counterfoil api",
    ),
    "relay": (
        "counterfoil relay",
        "COUNTERFOIL_POLL=0.2 counterfoil relay",
        "COUNTERFOIL_WINDOW=5000 counterfoil relay",
    ),
    "worker": (
        "counterfoil worker",
        "counterfoil worker --pool prefork --concurrency 4 --queues charge",
        "counterfoil worker --queues email,periodic --max-tasks-per-child 10000",
    ),
    "beat": (
        "counterfoil beat",
        "COUNTERFOIL_STATE_DIR=/var/lib/counterfoil counterfoil beat",
        "COUNTERFOIL_LOG_FORMAT=console counterfoil beat",
    ),
}


def api(
    host: Annotated[str | None, typer.Option(help="Default: COUNTERFOIL_API_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: COUNTERFOIL_API_PORT; 0: any.")] = None,
) -> None:
    """Serve HTTP: POST /v1/charges, POST /v1/emails, GET /v1/effects."""
    for name, value in (("HOST", host), ("PORT", port)):
        if value is not None:
            os.environ[f"COUNTERFOIL_API_{name}"] = str(value)
    from service import settings

    found = settings.load()
    found.database()
    from service.api.server import serve

    serve(found)


def relay() -> None:
    """Hand due effects to the broker; any number may run side by side."""
    from service import settings

    found = settings.load()
    found.database()
    found.broker()
    from service.broker.publish import Publisher
    from service.engine.relay import Relay
    from service.telemetry import logs
    from tasks import app
    from tasks.effect_task import actor

    logs.configure(found, process="relay")
    with Publisher(app) as publisher:
        running = Relay(publisher, found, actor=actor())
        _on_stop(running.stop)
        running.run()


def worker(
    context: typer.Context,
    pool: Annotated[str, typer.Option("--pool", "-P", help="threads, prefork, gevent or solo.")] = "threads",
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, help="Default: COUNTERFOIL_SLOTS threads, 4 processes.")
    ] = None,
    queues: Annotated[str | None, typer.Option("--queues", "-Q", help="Default: every lane and periodic.")] = None,
) -> None:
    """Perform effects. Further options are Celery's own and passed on to it."""
    from service import settings
    from service.broker.app import WORKER_FLAGS
    from service.broker.queues import PERIODIC

    found = settings.load()
    many = concurrency or (FORK_PROCESSES if pool == "prefork" else found.slots)
    served = queues or ",".join((*found.lane_names, PERIODIC))
    _become(["worker", *WORKER_FLAGS, "--pool", pool, "--concurrency", str(many), "--queues", served, *context.args])


def beat() -> None:
    """Ask for the periodic tasks. Running two is harmless, running none only makes the logs quieter."""
    from service import settings

    found = settings.load()
    found.database()
    found.broker()
    from service.telemetry import logs
    from tasks import app

    logs.configure(found, process="beat")
    found.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Not `celery beat`: its signal handler writes the schedule in the middle of whatever is going on, and has been
    # seen to hang, or to end with a traceback, when the signal comes early. This one only asks the loop to end.
    clock = app.Beat().Service(
        app=app, max_interval=BEAT_SECONDS, schedule_filename=str(found.state_dir / "beat-schedule")
    )
    _on_stop(clock.stop)
    clock.start()


def _on_stop(stop: Callable[[], object]) -> None:
    """Call `stop` on SIGTERM and Ctrl-C: in a thread, since the handler may have interrupted a holder of its lock."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=stop, daemon=True).start())


def _become(arguments: Sequence[str]) -> None:
    """Turn this process into Celery; what is missing is said here, where it is one sentence."""
    from service import settings

    found = settings.load()
    found.database()
    found.broker()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *_QUIET, "-m", "celery", "-A", "tasks", "--quiet", *arguments])  # noqa: S606


PROGRAMS: dict[str, Callable[..., None]] = {"api": api, "relay": relay, "worker": worker, "beat": beat}
