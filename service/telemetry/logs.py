"""One shape for every line of every process: API, relay, worker, beat, and the libraries under them.

JSON, one object a line, on standard error; on a terminal readable lines instead. A key that is not on the list below
says `[withheld]`: a payload cannot enter a log because somebody added a keyword. What is on the list is scrubbed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from service.settings import Settings
from service.telemetry.scrub import scrub

# Ids, names, counts, states, times and kinds of error. No payload, address, key, amount or card reference.
_NAMES = """
event level logger timestamp process exception stack
effect_id kind attempt task_id tenant request_id lane state reason actor provider phase step status code
error error_type task queue bytes count messages taken fresh published parked unknown leased_out deliveries
seconds oldest_seconds delay deadline duration_ms dependency what file name pid ports port host url
signal exit_code restarts method path version pool slots window poll_seconds
since objects known pointed orphans orphans_with_money contradictions adopted doubted
operation verb done skipped failures by break_class against_provider audit effects breaks new
event_id type nudged results events month months requests_purged items_dropped
"""
ALLOWED = frozenset(_NAMES.split())
_WITHHELD = "[withheld]"

# INFO here prints the arguments of every task, and costs up to a fifth of the throughput.
_TALKATIVE = ("celery.app.trace", "celery.worker.strategy", "kombu", "amqp", "uvicorn.access", "stripe", "urllib3")


def configure(settings: Settings, process: str) -> None:
    """Set up logging for this process: `api`, `relay`, `worker`, `beat` or `cli`. Calling it again is harmless."""
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    human = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(process, human=human))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # Celery and uvicorn hang handlers of their own on their loggers; their lines go to the root like all others.
    for name in ("celery", "uvicorn", "uvicorn.error", "uvicorn.access", "multiprocessing"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers are made at import, before this call and again after a fork; a cached one would keep the old set-up.
        cache_logger_on_first_use=False,
    )


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]


def _formatter(process: str, *, human: bool) -> logging.Formatter:
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if human
        else structlog.processors.JSONRenderer()
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _named(process),
            _allowed_only,
            renderer,
        ],
    )


def _named(process: str) -> Processor:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


def _allowed_only(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: _clean(value) if key in ALLOWED else _WITHHELD for key, value in event.items()}


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        # A card number may come as a number, too.
        return value if abs(value) < 10**12 else scrub(str(value))
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return scrub(value if isinstance(value, str) else _text(value))


def _text(value: Any, plain: Callable[[Any], str] = str) -> str:
    """A log line must come out whatever the object's own `__str__` does."""
    try:
        return plain(value)
    except Exception as error:  # noqa: BLE001
        return f"[{type(value).__name__}: {type(error).__name__}]"
