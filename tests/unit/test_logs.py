"""No line, whoever wrote it, carries a card, an address, a key or a payload."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from service.settings import Settings
from service.telemetry import logs
from service.telemetry.context import bound, current_context
from service.telemetry.scrub import TEXT_LENGTH_MAX, scrub
from tests.server import ROOT

ID = "01991d2c-8b1e-7c3a-9a7b-0d4f6a1b2c3d"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

SPEAKERS = {f"log.{level}" for level in ("debug", "info", "warning", "error", "critical", "exception")} | {"level"}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Logging as a worker has it, read back; what was there before is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.configure(Settings(log_format="json"), process="worker")
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("card 4242 4242 4242 4242 declined", "4242"),
        ("card 4242-4242-4242-4242 declined", "4242"),
        ("card ４２４２４２４２４２４２４２４２ declined", "４２"),
        ('{"number":"5555555555554444"}', "5555"),
        ("to <ada.lovelace+x@mail.example.co.uk>", "lovelace"),
        ("to=jürgen@exämple.de", "jürgen"),
        ("No such key sk_test_51HxyzABCDEF", "51Hxyz"),
        ("rk_live_51HxyzABCDEF", "51Hxyz"),
        ("whsec_abcdef123456", "abcdef"),
        ("re_abcd1234_ABCDEFGHIJKLMNOP", "ABCDEFG"),
        ("pi_3Nabc_secret_DEFghi", "DEFghi"),
        ("attach pm_1NabcDEF and pm_card_visa", "1Nabc"),
        ("postgresql://counterfoil:p%40ss/word@db:5432/x", "word"),
        ("redis://:open-sesame@127.0.0.1:6379/0", "sesame"),
        ("resend+https://SECRETKEY@api.example.com", "SECRETKEY"),
        ("Authorization: Bearer abc.def.ghi", "abc.def"),
        ("connect password=hunter22 host=db", "hunter22"),
        ("{'api_key': 'hunter22'}", "hunter22"),
    ],
)
def test_a_secret_is_taken_out_of_any_text(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in scrub(text)
    assert "withheld" in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        f"effect {ID} settled",
        "PaymentIntent pi_3NabcDEF012 succeeded, request req_abc123",
        "http://127.0.0.1:8000/v1/charges?limit=10",
        "at 2026-11-22T16:25:57.703538Z, 1732292757703 ms",
        "key order:17:charge",
        "celery@worker-1 ready.",
    ],
)
def test_what_an_operator_needs_stays(text: str) -> None:
    assert scrub(text) == text


def test_a_body_that_slipped_into_a_message_is_cut() -> None:
    assert len(scrub("x" * 1_000_000)) < TEXT_LENGTH_MAX + 100


def test_every_logger_writes_one_shape(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("service.engine.relay").warning("leases_lost", count=3)
    logging.getLogger("celery.worker").warning("Connected to %s", "redis://:open-sesame@h/0")
    ours, theirs = lines()
    assert ours.keys() - {"count"} == theirs.keys()
    assert (ours["event"], ours["count"], ours["process"], ours["level"]) == ("leases_lost", 3, "worker", "warning")
    assert "sesame" not in theirs["event"]


def test_a_key_that_is_not_on_the_list_is_withheld(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().info("accepted", request={"amount": 4200}, receipt_email="ada", effect_id=ID)
    [line] = lines()
    assert (line["request"], line["receipt_email"], line["effect_id"]) == ("[withheld]", "[withheld]", ID)


def test_each_word_that_our_own_lines_say_is_on_the_list() -> None:
    """Else whoever is on call reads that an operation has ended, and `[withheld]` for which one."""
    said = {
        (word.arg, f"{path.relative_to(ROOT)}:{call.lineno}")
        for folder in ("service", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in SPEAKERS
        for word in call.keywords
        if word.arg
    }
    assert len(said) > 50
    # structlog takes `exc_info` for itself and writes an `exception`.
    assert sorted(where for word, where in said if word not in logs.ALLOWED | {"exc_info"}) == []


def test_a_value_on_the_list_is_scrubbed_whatever_its_type(lines: Callable[[], list[dict[str, Any]]]) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("ada@example.com")

    structlog.get_logger().info(
        "x", error=ValueError("ada@example.com"), reason=["sk_test_abcdefgh"], code=4242424242424242
    )
    structlog.get_logger().info("x", error=Odd(), reason={"to": "ada@example.com"})
    text = json.dumps(lines())
    assert not [secret for secret in ("ada", "sk_test", "4242424242424242") if secret in text]


def test_tracebacks_are_scrubbed_ours_and_theirs(lines: Callable[[], list[dict[str, Any]]]) -> None:
    for logger in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        try:
            int("ada@example.com paid with 4242424242424242")
        except ValueError:
            logger.exception("broken")
    found = lines()
    assert all("ValueError" in line["exception"] and "test_logs.py" in line["exception"] for line in found)
    assert not [secret for secret in ("ada@", "4242424242424242") if secret in json.dumps(found)]


def test_celery_does_not_print_arguments(lines: Callable[[], list[dict[str, Any]]]) -> None:
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).info("Task %s received with %s", "charge", {"effect_ids": [ID]})
    assert lines() == []


def test_a_terminal_gets_readable_lines(monkeypatch: pytest.MonkeyPatch, lines: Callable[[], Any]) -> None:  # noqa: ARG001
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.configure(Settings(log_format="console"), process="relay")
    structlog.get_logger().warning("outage", dependency="broker", secret_thing="sk_test_abcdefgh")
    assert "outage" in out.getvalue()
    assert not out.getvalue().startswith("{")
    assert "sk_test" not in out.getvalue()


def test_the_request_id_travels_and_is_gone_afterwards(lines: Callable[[], list[dict[str, Any]]]) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req-17"):
        stored = current_context()
    assert stored == {"request_id": "req-17"}
    log = structlog.get_logger()
    with bound(stored, effect_id=ID, kind="charge", attempt=2, tenant="default"):
        log.info("inside")
        assert current_context() == stored
    log.info("outside")
    inside, outside = lines()
    assert (inside["request_id"], inside["effect_id"], inside["attempt"]) == ("req-17", ID, 2)
    assert not {"request_id", "effect_id", "attempt"} & outside.keys()


def test_the_trace_of_the_accepting_request_reaches_the_worker() -> None:
    span = SpanContext(
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    with use_span(NonRecordingSpan(span)):
        stored = current_context()
    assert stored == {"traceparent": TRACE}
    assert current_context() == {}
    with bound(stored):
        assert trace.get_current_span().get_span_context().trace_id == span.trace_id
    assert current_context() == {}


@pytest.mark.parametrize("request_id", ["ada@example.com", "x" * 200, "a\nb", 7, ""])
def test_a_request_id_that_is_no_id_is_not_stored(request_id: object) -> None:
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        assert current_context() == {}
