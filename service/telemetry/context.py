"""Who asked: the request id and trace context of the accepting call, stored with the effect, alive in the worker.

W3C Trace Context (`traceparent`, `tracestate`) and nothing else: baggage may hold anything, so it stays behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from opentelemetry import context as otel
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_TRACE = ("traceparent", "tracestate")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_propagator = TraceContextTextMapPropagator()


def current_context() -> dict[str, str]:
    """What to store with an effect that is accepted now: empty outside a request and a span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    found = {name: carrier[name] for name in _TRACE if carrier.get(name)}
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    # It came from outside and is written into every line of this effect, so it must look like an id.
    if isinstance(request_id, str) and _REQUEST_ID.match(request_id):
        found["request_id"] = request_id
    return found


@contextmanager
def bound(context: Mapping[str, str], **fields: object) -> Iterator[None]:
    """Inside, log lines carry the fields and the stored request id, and spans continue the stored trace."""
    request_id = context.get("request_id")
    lines = {**fields, "request_id": request_id} if request_id else dict(fields)
    token = otel.attach(_propagator.extract({name: context[name] for name in _TRACE if name in context}))
    try:
        with structlog.contextvars.bound_contextvars(**lines):
            yield
    finally:
        otel.detach(token)
