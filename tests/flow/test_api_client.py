"""The typed client: names for what the API answers, the same key on every try, patience as asked for, both kinds of code."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import pytest

from service.client import (
    Accepted,
    AsyncCounterfoil,
    BatchRefused,
    Conflict,
    Counterfoil,
    NotFound,
    Refused,
    StillOpen,
    Unavailable,
)
from tests.flow.doors import CHARGE, Door, park, served
from tests.server import Server

_keys = count(1)
EMAIL: dict[str, Any] = {"to": "ada@example.test", "subject": "Hello", "text": "Hello Ada"}


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


@pytest.fixture
def api(door: Door) -> Iterator[Counterfoil]:
    with Counterfoil(f"http://{door.host}:{door.port}", patience=20) as client:
        yield client


@pytest.fixture
def key() -> str:
    return f'client:{next(_keys)}:"quoted\\'


def charge(api: Counterfoil, key: str, amount: int = 4200, **more: Any) -> Accepted:
    return api.charge(key, amount=amount, currency="eur", payment_method="pm_card_visa", **more)


def test_an_effect_is_accepted_found_and_waited_for(door: Door, api: Counterfoil, key: str) -> None:
    first, again = charge(api, key), charge(api, key)
    assert (first.created, again.created, again.id) == (True, False, first.id)
    assert api.effect(first.id).dedupe_key == key
    with pytest.raises(StillOpen) as open_:
        api.outcome(first.id, timeout=0)
    assert open_.value.effect.state == "pending"
    door.settle(first.id)
    settled = api.outcome(first.id, timeout=5)
    assert (settled.succeeded, settled.amount) == (True, 4200)
    assert charge(api, key, wait=5).effect == settled
    assert [event.fact for event in api.events(first.id)] == ["accepted", "claimed", "succeeded"]


def test_every_kind_and_its_options_pass(api: Counterfoil, key: str) -> None:
    paid = charge(api, key, options={"countdown": 3600, "priority": 3})
    assert api.effect(paid.id).not_before is not None
    assert api.email(key, **EMAIL).kind == "email"
    assert api.refund(key, charge=paid.id, amount=1, currency="eur").kind == "refund"
    assert api.capture(key, charge=paid.id, amount=1, currency="eur").kind == "capture"
    assert api.cancel(key, charge=paid.id).kind == "cancel"


def test_lists_go_on_to_the_end_by_themselves(api: Counterfoil) -> None:
    made = {charge(api, f"pages:{n}").id for n in range(5)}
    assert {effect.id for effect in api.effects(key_prefix="pages:", kind="charge", limit=2)} == made


def test_problems_have_names(api: Counterfoil, key: str) -> None:
    paid = charge(api, key)
    with pytest.raises(Conflict) as conflict:
        charge(api, key, 1)
    assert (conflict.value.problem.effect_id, conflict.value.problem.safe_new_key) == (paid.id, False)
    with pytest.raises(Refused, match="amount"):
        charge(api, f"{key}2", 0)
    with pytest.raises(NotFound):
        api.effect("0198c0de-0000-7000-8000-00000000dead")
    with pytest.raises(ValueError, match="key"):
        charge(api, "two words")
    with pytest.raises(BatchRefused) as refused:
        api.batch([{"kind": "charge", "idempotency_key": "b", "request": {**CHARGE, "amount": 0}}], atomic=True)
    assert refused.value.problem.errors[0]["index"] == 0


def test_operations_from_the_plan_to_the_end(door: Door, api: Counterfoil, key: str) -> None:
    stuck = charge(api, key)
    park(door.database_url, stuck.id)
    plan = api.plan("replay", ids=[stuck.id])
    assert plan.ids == [stuck.id]
    assert api.start(plan.id, reason="INC-1", per_second=1, batch=10).state == "running"
    assert api.pause(plan.id).state == "paused"
    assert api.resume(plan.id).state == "running"
    assert api.cancel_operation(plan.id, reason="enough").state == "cancelled"
    with pytest.raises(Conflict):
        api.start(plan.id, reason="again")
    assert api.operation(plan.id).stop_reason is not None or api.operation(plan.id).state == "cancelled"
    assert api.operation_items(plan.id)[0].effect_id == stuck.id
    assert api.note(api.groups()[0].id, "INC-1").notes
    assert api.stats()["parked"] >= 1


def test_asynchronous_code_has_the_same_calls(door: Door, key: str) -> None:
    async def use() -> None:
        async with AsyncCounterfoil(f"http://{door.host}:{door.port}") as api:
            made = await asyncio.gather(
                *(api.charge(f"{key}{n}", amount=4200, currency="eur", payment_method="pm_card_visa") for n in range(5))
            )
            assert all(one.created for one in made)
            assert (await api.effect(made[0].id)).state == "pending"
            found = [effect.id async for effect in api.effects(key_prefix=key, limit=2)]
            assert sorted(found) == sorted(one.id for one in made)

    asyncio.run(use())


def test_both_clients_offer_the_same_names_and_arguments() -> None:
    def offered(kind: type) -> dict[str, list[str]]:
        public = inspect.getmembers(kind, lambda m: inspect.isfunction(m) and not m.__name__.startswith("_"))
        return {name: list(inspect.signature(method).parameters) for name, method in public}

    assert offered(Counterfoil) == offered(AsyncCounterfoil)


# --- a server with bad manners --------------------------------------------------------------------------------------


@contextmanager
def scripted(*script: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers by script, and the Idempotency-Key of each request it got."""
    keys: list[str] = []
    steps = iter(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers.get("Idempotency-Key", ""))
            self.rfile.read(int(self.headers["Content-Length"]))
            next(steps)(self)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()
        server.server_close()


def says(status: int, document: dict[str, Any], **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        raw = json.dumps(document).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def problem(code: str, status: int) -> dict[str, Any]:
    return {
        "code": code,
        "status": status,
        "title": code,
        "detail": code,
        "type": f"/problems/{code}",
        "retryable": True,
    }


TAKEN = says(202, {"id": "e-1", "kind": "charge", "state": "pending", "created": True})
AWAY = says(503, problem("dependency_unavailable", 503), Retry_After="0")
FULL = says(503, problem("overloaded", 503), Retry_After="0")


def test_a_lost_answer_is_asked_for_again_with_the_same_key() -> None:
    with scripted(hangs_up, AWAY, says(502, {}), TAKEN) as (url, keys), Counterfoil(url) as api:
        assert charge(api, "order:1").id == "e-1"
    assert keys == ['"order:1"'] * 4


def test_what_could_happen_twice_is_not_asked_for_again() -> None:
    operation = {"note": "x"}
    with scripted(hangs_up) as (url, keys), Counterfoil(url) as api, pytest.raises(Unavailable) as lost:
        api.start("0198c0de", reason="x")
    assert (len(keys), lost.value.sent) == (1, True)
    group = {"id": "g", "kind": "charge", "state": "parked", "reason": "", "error": "", "count": 1, "money": {}}
    done = says(200, {**group, "sample": [], "notes": [operation]})
    with scripted(FULL, done) as (url, keys), Counterfoil(url) as api:
        assert api.note("g", "x").notes == [operation]  # the first was told that nothing was done
    assert len(keys) == 2


def test_a_refusal_is_never_asked_again() -> None:
    refusing = scripted(says(400, problem("invalid_request", 400)))
    with refusing as (url, keys), Counterfoil(url) as api, pytest.raises(Refused):
        charge(api, "order:1")
    assert len(keys) == 1


def test_retry_after_beyond_the_callers_patience_ends_the_call() -> None:
    late = says(503, problem("overloaded", 503), Retry_After="3600")
    with scripted(late) as (url, keys), Counterfoil(url, patience=5) as api, pytest.raises(Unavailable) as error:
        charge(api, "order:1")
    assert (len(keys), error.value.code) == (1, "overloaded")


def test_nobody_there_is_told_as_not_sent() -> None:
    with scripted() as (url, _):
        pass
    with Counterfoil(url, patience=0) as api, pytest.raises(Unavailable) as error:
        charge(api, "order:1")
    assert error.value.sent is False
