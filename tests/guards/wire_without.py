"""One small story for each guard on the wire, without a broker: real classes of ours, kombu's and Celery's, real bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Task
from celery.worker.request import Request
from kombu.message import Message as KombuMessage
from kombu.transport.redis import loads
from kombu.utils.encoding import bytes_to_str

from service.broker import consumer, redis_transport
from service.broker.app import create_app
from service.broker.confirms import Confirms, NotStored
from service.core.errors import ValidationError
from service.core.outcome import Contradiction, Succeeded
from service.providers.stripe.answers import Expected, Reply, Sent, Step, classify
from service.settings import Settings
from tasks import effect_task

_ID = "0198c0de-0000-7000-8000-000000000001"


# --- publishing ----------------------------------------------------------------------------------------------------


@dataclass
class _RefusingChannel:
    """amqp's side of a channel whose queue is full: it numbers publishes and answers `basic.nack` (RabbitMQ docs)."""

    events: dict[str, set[Any]] = field(
        default_factory=lambda: {f"basic_{word}": set() for word in ("ack", "nack", "return")}
    )

    def __post_init__(self) -> None:
        self.connection = self

    def confirm_select(self) -> None:
        """It confirms from now on."""

    def drain_events(self, timeout: float) -> None:
        assert timeout > 0
        for refused in self.events["basic_nack"]:
            refused(1, multiple=False)


def full_queue(_: object) -> str:
    confirms = Confirms(_RefusingChannel())
    confirms.expect()
    try:
        confirms.wait(5.0)
    except NotStored:
        return ""
    return "W4: the relay was told that a message is stored, and the broker had refused it"


# --- receiving -----------------------------------------------------------------------------------------------------


def bytes_that_are_no_message(_: object) -> str:
    found = redis_transport._message_or_none((b"charge", b"\x00 not JSON"))
    if found is None:
        return ""
    try:
        loads(bytes_to_str(found[1]))  # what kombu's reader does next, outside of all error handling
    except ValueError as error:
        return f"one foreign list item ends the worker: {type(error).__name__} in kombu's reader"
    return ""


def task_with_a_callback(_: object) -> str:
    """A stranger's message that would make the worker publish for him."""
    chain = {
        "callbacks": None,
        "errbacks": None,
        "chain": [{"task": "refund", "args": [], "kwargs": {}}],
        "chord": None,
    }
    body = json.dumps([[], {"effect_ids": [_ID]}, chain]).encode()
    message = KombuMessage(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": "charge", "id": _ID, "retries": 0},
        accept=["json"],
    )
    return "" if consumer._flaw(message) else "I3: a message makes the worker publish what a stranger has written"


def message_that_names_no_effect(_: object) -> str:
    try:
        ids = effect_task.read_effect_ids([], {"effect_ids": ["'; drop table effects; --"]})
    except ValidationError:
        return ""
    return f"a foreign text goes into a statement as an id: {ids[0]!r}"


# --- acknowledging -------------------------------------------------------------------------------------------------


@dataclass
class _Envelope:
    """A message as a transport hands it over; remembers what became of it."""

    body: bytes
    headers: dict[str, Any]
    fate: list[str] = field(default_factory=list)
    content_type = "application/json"
    content_encoding = "utf-8"
    delivery_info: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def payload(self) -> Any:
        return json.loads(self.body)


def _request(envelope: _Envelope) -> Request:
    app = create_app(Settings())
    app.finalize()

    # A class for each request: Celery writes the configuration it meets first into the class, and leaves it there.
    class Charge(Task):
        name = "charge"

        def run(self, effect_ids: list[str]) -> None:
            raise AssertionError(effect_ids)

    app.register_task(Charge())
    return Request(
        envelope,
        app=app,
        task=app.tasks["charge"],
        on_ack=lambda *_: envelope.fate.append("acknowledged"),
        on_reject=lambda *args: envelope.fate.append("requeued" if args[-1] else "rejected"),
    )


def _delivered() -> _Envelope:
    body = json.dumps([[], {"effect_ids": [_ID]}, {}]).encode()
    return _Envelope(body, {"task": "charge", "id": _ID, "retries": 0, "root_id": _ID})


def message_of_a_worker_that_will_die(_: object) -> str:
    envelope = _delivered()
    _request(envelope).on_accepted(pid=1, time_accepted=0.0)
    return "W5: the broker has forgotten a message whose work has just begun" if envelope.fate else ""


def message_of_a_child_that_was_killed(_: object) -> str:
    envelope = _delivered()
    request = _request(envelope)
    request.on_failure(_killed())
    return "" if envelope.fate == ["requeued"] else f"W7: the message of a child that was killed is {envelope.fate[0]}"


def _killed() -> ExceptionInfo:
    try:
        raise WorkerLostError("signal 9 (SIGKILL)")  # noqa: TRY301 - a traceback is what is wanted
    except WorkerLostError:
        return ExceptionInfo()


# --- the provider's answer -----------------------------------------------------------------------------------------


def answer_about_another_object(_: object) -> str:
    strangers = {
        "id": "pi_2", "object": "payment_intent", "amount": 4200, "currency": "eur", "livemode": False,
        "status": "succeeded", "metadata": {"effect_id": "somebody-else"}, "latest_charge": "ch_2",
    }  # fmt: skip
    reply = Reply(Step.CONFIRM, Sent.ANSWERED, False, "", status=200, body=strangers, error=None, replayed=False)
    outcome = classify(reply, Expected(_ID, 4200, "eur", livemode=False, intent="pi_1"))
    if isinstance(outcome, Contradiction):
        return ""
    return "I5: succeeded, by the payment of somebody else" if isinstance(outcome, Succeeded) else repr(outcome)


def keys_of_two_steps(_: object) -> str:
    from service.providers.stripe import attempt

    keys = {attempt.step_key(_ID, step) for step in ("create", "confirm")}
    return (
        ""
        if len(keys) == 2
        else "I6: the confirmation is sent under the key of the creation; Stripe refuses it for ever"
    )
