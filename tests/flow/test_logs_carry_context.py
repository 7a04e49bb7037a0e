"""One JSON shape for every process; a line says whose effect it is about, and never what is in it."""

from __future__ import annotations

from tests.flow.brokers import free_port
from tests.flow.system import System
from tests.flow.test_main_job import _listens, _post

# What callers put into a request, and what opens doors: none of it belongs in a line.
_PRIVATE = (
    "ada.private@example.test",
    "pm_card_visa",
    "cus_private",
    "Order of a private matter",
    "sk_test_flow",
    "31337",
)


def test_the_request_id_of_the_caller_reaches_the_worker_s_lines(system: System) -> None:
    port = free_port()
    api = system.start("api", ["service", "api", "--port", str(port)])
    relay = system.relay()
    worker = system.worker()
    wish = {"amount": 31337, "currency": "eur", "customer": "cus_private", "payment_method": "pm_card_visa"}
    wish |= {"receipt_email": _PRIVATE[0], "description": "Order of a private matter"}
    system.until(lambda: _listens(port), "the API listens")
    effect_id = _post(port, wish, key="order:logs", **{"X-Request-Id": "req-from-outside-17"})["id"]
    system.settles(effect_id)
    system.oracle.check()

    def settled() -> list[dict[str, object]]:
        return [line for line in worker.lines("settled") if line.get("request_id") == "req-from-outside-17"]

    system.until(lambda: len(settled()) == 2, "the charge and its receipt were logged")
    of_charge, of_receipt = sorted(settled(), key=lambda line: str(line["kind"]))
    assert (of_charge["effect_id"], of_charge["kind"], of_charge["attempt"]) == (effect_id, "charge", 1)
    assert of_receipt["kind"] == "email"
    for line in (of_charge, of_receipt):
        assert line["tenant"] == "default"
        assert line["task_id"]
        assert {"event", "level", "timestamp", "logger", "process"} <= set(line)
    assert [line for line in api.lines() if line.get("request_id") == "req-from-outside-17"]
    for program in (api, relay, worker):
        for secret in (*_PRIVATE, system.wire.url.partition("@")[0]):
            assert secret not in program.text(), f"{program.name} has logged {secret}"


def test_an_outcome_nobody_expected_is_logged_without_its_content(system: System) -> None:
    system.stripe.fault("status_500_stored_after", route="confirm")
    system.relay()
    worker = system.worker()
    effect_id = system.charge(receipt="ada.private@example.test")
    system.settles(effect_id)
    system.oracle.check()
    assert {line["state"] for line in worker.lines("settled") if line["effect_id"] == effect_id} >= {"succeeded"}
    assert "ada.private@example.test" not in worker.text()
    assert "pm_card_visa" not in worker.text()
