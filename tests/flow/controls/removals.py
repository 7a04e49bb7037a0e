"""More guards to take out, as `sitecustomize` does: the module, and what is done to it when it has been imported.

Each is the smallest change that a hurried hand could make. A guard in the SQL is a condition that is no longer there; if
its text has changed, the control says so at once instead of taking out nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

Patch = Callable[[ModuleType], None]


def without(statement: str, condition: str, instead: str = "true") -> Patch:
    """A statement of the module without one of its conditions."""

    def patch(module: ModuleType) -> None:
        guarded = str(getattr(module, statement))
        assert condition in guarded, f"{statement} no longer says {condition!r}"
        setattr(module, statement, module.text(guarded.replace(condition, instead)))

    return patch


def _no_compare(module: ModuleType) -> None:
    """I4: whoever comes with a known key is told that his request was accepted, whatever it asks for."""
    module._repeat = lambda _, known: module.Accepted(known[0], known[1], created=False)  # type: ignore[attr-defined]


def _any_charge(module: ModuleType) -> None:
    """A refund may name any charge, any currency and any amount."""
    module._mismatch = lambda *_: None  # type: ignore[attr-defined]


def _ready_at_once(module: ModuleType) -> None:
    """What acts upon a charge begins whatever has become of the charge."""
    without("_CLAIM", module.READY)(module)


def _no_budget(module: ModuleType) -> None:
    """An effect is tried for ever."""
    without("_CLAIM", module._SPENT, "false")(module)
    without("_PARK_SPENT", module._SPENT, "false")(module)


def _unfenced_record(module: ModuleType) -> None:
    """Whoever has a recovery point to write is believed."""
    without("_RECORD", "e.attempt = i.attempt and e.state = 'executing' and e.lease_until > now()")(module)


def _one_of_a_batch(module: ModuleType) -> None:
    """Who owned an effect is known by the effect's id alone, though two attempts of it end in one batch."""
    guarded = str(module._SETTLE)
    numbers = (" and i.attempt = w.attempt", " and w.attempt = i.attempt")
    assert all(number in guarded for number in numbers)
    for number in numbers:
        guarded = guarded.replace(number, "")
    module._SETTLE = module.text(guarded)  # type: ignore[attr-defined]


def _nothing_adopted(module: ModuleType) -> None:
    """A repeated key does not look for the money that a forgotten effect has moved."""
    without("_CLAIM", ") o on true", ") o on false")(module)


def _no_watermark(module: ModuleType) -> None:
    """What this host has seen of the database does not count."""
    from service.store import incarnation

    without("_CLAIM", incarnation._SEEN)(module)


def _follow_up_afterwards(module: ModuleType) -> None:
    """The settlement in one commit, what it causes in the next."""

    def settle(items: Any, *, actor: str) -> set[tuple[str, int]]:
        with module.transaction() as connection:
            owned = module.attempts.settle(connection, [done for done, _ in items], actor=actor)
        orders = [order for done, asked in items if (done.id, done.attempt) in owned for order in asked]
        if orders:
            with module.transaction() as connection:
                module.effects.accept(connection, orders, actor=actor)
        return set(owned)

    module.settle = settle  # type: ignore[attr-defined]


def _no_window(module: ModuleType) -> None:
    """All of the backlog goes to the broker at once."""
    module.Relay._room = property(lambda _: module.BATCH_MAX, lambda _self, _counted: None)


def _no_confirm(module: ModuleType) -> None:
    """W4: a message that was written into a socket counts as stored."""
    module.Confirms.wait = lambda _, __: None


def _no_item_check(module: ModuleType) -> None:
    """Whatever lies in the list is given to kombu."""
    module.item_flaw = lambda _: None  # type: ignore[attr-defined]


def _no_message_check(module: ModuleType) -> None:
    """Whatever kombu has decoded is given to Celery."""
    module._flaw = lambda _: None  # type: ignore[attr-defined]


def _any_ids(module: ModuleType) -> None:
    """A message is taken at its word."""
    module.read_effect_ids = lambda args, kwargs: kwargs.get("effect_ids", list(args))  # type: ignore[attr-defined]


def _setting(name: str, value: object) -> Patch:
    def patch(module: ModuleType) -> None:
        honest = module._delivery
        module._delivery = lambda settings: {**honest(settings), name: value}  # type: ignore[attr-defined]

    return patch


def _no_echo(module: ModuleType) -> None:
    """Whatever object an answer shows is taken for ours."""
    for name in ("Expected", "ExpectedRefund", "ExpectedCapture", "ExpectedCancel"):
        getattr(module, name).echoed_by = lambda *_: True


def _one_key(module: ModuleType) -> None:
    """I6: one key for all steps of an effect."""
    module.step_key = lambda effect_id, _: effect_id  # type: ignore[attr-defined]


def _outranked(module: ModuleType) -> None:
    """What a person declares is written, whatever the provider says."""
    module.objects = lambda *_: None  # type: ignore[attr-defined]


def _own_words(module: ModuleType) -> None:
    """What is written is the person's word, not the provider's."""

    def outcome(case: Any, _: object, __: object) -> Any:
        failed = case.wish.as_ is module.As.FAILED
        return module.Failed("resolved_as_failed", "") if failed else module.Succeeded(case.wish.ref or "")

    module._outcome = outcome  # type: ignore[attr-defined]


def _at_once(module: ModuleType) -> None:
    """A person may say failed while the last request may still land."""
    module._too_soon = lambda *_: None  # type: ignore[attr-defined]


def _no_proof(module: ModuleType) -> None:
    """A person may send again what may have been done."""
    module._provably_not_done = lambda _: True  # type: ignore[attr-defined]


_FIRST_SENT = "first_sent_at = coalesce(e.first_sent_at, d.sent_at, clock_timestamp())"
_AT_REST = "state in ('pending', 'unknown', 'awaiting') or (state = 'executing' and lease_until < now())"
_STANDS = """e.attempt = i.attempt and (
        e.state = 'executing'
        or (e.state in ('unknown', 'parked', 'awaiting') and i.state in ('succeeded', 'failed'))
        or (e.state = 'unknown' and i.state = 'awaiting'))"""
_ATTEMPTS = "service.store.attempts"

REMOVALS: dict[str, tuple[str, Patch]] = {
    "no_compare": ("service.engine.accept", _no_compare),
    "any_charge": ("service.engine.accept", _any_charge),
    "no_conflict": ("service.store.effects", without("_ACCEPT", "on conflict (tenant, kind, dedupe_key) do nothing", "")),
    "sent_later": (_ATTEMPTS, without("_CLAIM", _FIRST_SENT, "first_sent_at = e.first_sent_at")),
    "no_time": (_ATTEMPTS, without("_CLAIM", "(not_before is null or not_before <= now())")),
    "no_lease": (_ATTEMPTS, without("_CLAIM", "(state = 'executing' and lease_until < now())", "state = 'executing'")),
    "parked_too": (_ATTEMPTS, without("_CLAIM", _AT_REST, f"state = 'parked' or {_AT_REST}")),
    "any_kind": (_ATTEMPTS, without("_CLAIM", "(cast(:kind as text) is null or kind = :kind)", "cast(:kind as text) is not distinct from :kind")),
    "ready_at_once": (_ATTEMPTS, _ready_at_once),
    "no_budget": (_ATTEMPTS, _no_budget),
    "no_doubt": (_ATTEMPTS, without("_CLAIM", "e.in_doubt or d.state = 'executing'", "e.in_doubt")),
    "unfenced_record": (_ATTEMPTS, _unfenced_record),
    "any_settlement": (_ATTEMPTS, without("_SETTLE", _STANDS, "e.attempt = i.attempt")),
    "one_of_a_batch": (_ATTEMPTS, _one_of_a_batch),
    "row_stays": (_ATTEMPTS, without("_SETTLE", "where o.effect_id = w.id and i.id = w.id and i.attempt = w.attempt and i.state in", "where false and i.state in")),
    "nothing_adopted": (_ATTEMPTS, _nothing_adopted),
    "no_watermark": (_ATTEMPTS, _no_watermark),
    "open_gate": (_ATTEMPTS, without("_CLAIM", ") is true as open", ") is not null or true as open")),
    "follow_up_afterwards": ("service.engine.settle", _follow_up_afterwards),
    "no_window": ("service.engine.relay", _no_window),
    "sure_replay": ("service.store.operations", without("_REPLAY", "in_doubt = e.in_doubt or e.state = 'executing'", "in_doubt = false")),
    "certain_when_lost": ("service.store.outbox", without("_LEASED_OUT", "state = 'unknown', in_doubt = true", "state = 'unknown'")),
    "replay_the_living": ("service.store.selection", without("_BY_ID", "e.state = 'executing' and e.lease_until >= now() as live", "false as live")),
    "replay_what_changed": ("service.store.operations", without("_REPLAY", "e.state = i.seen_state and e.attempt = i.seen_attempt", "true")),
    "outranked": ("service.engine.resolve", _outranked),
    "own_words": ("service.engine.resolve", _own_words),
    "at_once": ("service.engine.resolve", _at_once),
    "no_proof": ("service.engine.resolve", _no_proof),
    "no_confirm": ("service.broker.confirms", _no_confirm),
    "no_item_check": ("service.broker.redis_transport", _no_item_check),
    "no_message_check": ("service.broker.consumer", _no_message_check),
    "any_ids": ("tasks.effect_task", _any_ids),
    "acks_early": ("service.broker.configuration", _setting("task_acks_late", False)),
    "acks_the_lost": ("service.broker.configuration", _setting("task_reject_on_worker_lost", False)),
    "no_echo": ("service.providers.stripe.statuses", _no_echo),
    "one_key": ("service.providers.stripe.attempt", _one_key),
}  # fmt: skip
