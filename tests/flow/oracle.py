"""Asserts the invariants at the provider's own books and in the database, sharing no code with the service.

Plain SQL, plain HTTP. The fakes live longer than one test and never forget, so only what came after `Oracle` was made
counts. A sentence that starts with `I1` says which invariant broke and for which effect.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

Ask = Callable[[str], dict[str, Any]]
Row = dict[str, Any]

FINAL = ("succeeded", "failed")
_STEPS = {"create", "confirm", "refund", "capture", "cancel", "send"}
_MONEY_KINDS = {"charge", "refund", "capture"}
_FACT_OF_STATE = {
    "unknown": {"unknown", "leased_out", "late_answer", "deferred"},
    "awaiting": {"awaiting", "deferred", "verified"},
    "parked": {"parked", "late_answer"},
    "succeeded": {"succeeded", "late_answer", "verified", "resolved"},
    "failed": {"failed", "late_answer", "verified", "resolved"},
}
# Facts that change no state: what was heard, found out or decided beside the attempts.
_BESIDE = {"late_answer", "hinted", "verified", "resolved"}


@dataclass
class Books:
    """All that is known, on both sides, at one moment."""

    effects: dict[str, Row]
    outbox: dict[str, Row]
    journal: dict[str, list[Row]]
    money: list[Row]
    letters: list[Row]
    asked: list[Row]
    """Requests that reached the HTTP providers."""
    money_of: dict[str, list[Row]] = field(default_factory=dict)
    letters_of: dict[str, list[Row]] = field(default_factory=dict)


class Oracle:
    """`check()` after every test that disturbs something."""

    def __init__(self, database: str, stripe: Ask, mail: Ask) -> None:
        self._database = database
        self._stripe = stripe
        self._mail = mail
        self._money_before = _last(stripe("ledger")["money"])
        self._letters_before = _last(mail("mailbox")["mail"])
        self._asked_before = [_last(ask("requests")["requests"]) for ask in (stripe, mail)]

    def check(self, *, unfinished: tuple[str, ...] = ()) -> Books:
        """Assert all invariants; effects named in `unfinished` may still be pending or executing."""
        books = self.books()
        wrong = self.violations(books, unfinished=unfinished)
        assert not wrong, "\n".join(["the oracle objects:", *wrong])
        return books

    def violations(self, books: Books | None = None, *, unfinished: tuple[str, ...] = ()) -> list[str]:
        """Every broken promise as a sentence."""
        seen = books or self.books()
        return [
            sentence
            for look in (_once, _visible, _caused, _true, _ordered, _one_key, _duty, _explained, _receipts)
            for sentence in look(seen)
            if not (sentence.startswith("I2") and any(effect in sentence for effect in unfinished))
        ]

    def books(self) -> Books:
        """Read both sides; ours first, so that what the provider has in addition is really in addition."""
        with psycopg.connect(self._database, row_factory=dict_row) as db:
            effects = {str(row["id"]): row for row in db.execute("select * from effects").fetchall()}
            outbox = {str(row["effect_id"]): row for row in db.execute("select * from outbox").fetchall()}
            journal: dict[str, list[Row]] = defaultdict(list)
            for fact in db.execute("select * from journal order by effect_id, id").fetchall():
                journal[str(fact["effect_id"])].append(fact)
        asked = [
            row
            for ask, before in zip((self._stripe, self._mail), self._asked_before, strict=True)
            for row in ask("requests")["requests"]
            if row["seq"] > before
        ]
        moved = [row for row in self._stripe("ledger")["money"] if row["seq"] > self._money_before]
        money = [row for row in moved if row["kind"] in _MONEY_KINDS]  # a refund that failed is nobody's effect
        letters = [row for row in self._mail("mailbox")["mail"] if row["seq"] > self._letters_before]
        books = Books(effects, outbox, journal, money, letters, asked)
        books.money_of = _grouped(money, _money_effect)
        books.letters_of = _grouped(letters, _letter_effect)
        return books


def _last(rows: list[Row]) -> int:
    return max((row["seq"] for row in rows), default=0)


def _grouped(rows: list[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _money_effect(row: Row) -> str:
    """A capture leaves its own mark beside the charge's."""
    return str(row["metadata"].get("capture_effect_id" if row["kind"] == "capture" else "effect_id"))


def _letter_effect(letter: Row) -> str:
    if letter["idempotency_key"]:
        return str(letter["idempotency_key"]).partition(":")[0]
    return str(letter["message_id"] or "").strip("<>").partition("@")[0]


def _once(books: Books) -> Iterator[str]:
    """I1 at most one movement of money, one accepted keyed message; amounts equal."""
    for effect_id, rows in books.money_of.items():
        if len(rows) > 1:
            yield f"I1 {effect_id} was charged {len(rows)} times"
        effect = books.effects.get(effect_id)
        for row in rows if effect else ():
            if effect and (row["amount"], row["currency"]) != (effect["amount"], effect["currency"]):
                yield f"I1 {effect_id} was charged {row['amount']} {row['currency']}, not what was asked"
    taken = Counter(row["payment_intent"] for row in books.money if row["kind"] != "refund")
    for intent, times in taken.items():
        if times > 1:
            yield f"I1 the money of {intent} was taken {times} times"
    keyed = Counter((_letter_effect(x), x["recipient"]) for x in books.letters if x["via"] == "resend")
    for (effect_id, _), times in keyed.items():
        if times > 1:
            yield f"I1 {effect_id} was mailed {times} times by the keyed provider"


def _visible(books: Books) -> Iterator[str]:
    """I2 final, or visibly waiting with a fact that says why."""
    for effect_id, effect in books.effects.items():
        state = effect["state"]
        if state in ("pending", "executing"):
            yield f"I2 {effect_id} is still {state}"
        elif state not in FINAL and not _FACT_OF_STATE[state] & {x["fact"] for x in books.journal[effect_id]}:
            yield f"I2 {effect_id} is {state} and the journal does not say why"


def _caused(books: Books) -> Iterator[str]:
    """I3 nothing exists at a provider without an effect of its kind."""
    for groups, kind_of in ((books.money_of, lambda row: row["kind"]), (books.letters_of, lambda _: "email")):
        for effect_id, rows in groups.items():
            effect = books.effects.get(effect_id)
            for kind in {kind_of(row) for row in rows}:
                if effect is None or effect["kind"] != kind:
                    yield f"I3 the provider has a {kind} of {effect_id}, which is no such effect"


def _there(books: Books, effect_id: str, effect: Row) -> list[Row]:
    """What the provider has of an effect; a charge that only held the money has what was captured of it."""
    if effect["kind"] == "email":
        return books.letters_of.get(effect_id, [])
    captured = [row for row in books.money if row["kind"] == "capture" and row["metadata"]["effect_id"] == effect_id]
    return books.money_of.get(effect_id, []) + captured


def _true(books: Books) -> Iterator[str]:
    """I5 succeeded: the provider has it. failed, or never claimed: it does not. A cancel leaves the charge without."""
    for effect_id, effect in books.effects.items():
        if effect["kind"] == "cancel":
            if effect["state"] == "succeeded" and _there(books, str(effect["concerns"]), {"kind": "charge"}):
                yield f"I5 {effect_id} is succeeded and the money of its charge was taken"
            continue
        there = _there(books, effect_id, effect)
        if effect["state"] == "succeeded" and not there:
            yield f"I5 {effect_id} is succeeded and the provider does not have it"
        if effect["state"] == "failed" and there:
            yield f"I5 {effect_id} is failed and the provider has it"
        if effect["attempt"] == 0 and there:
            yield f"I5 {effect_id} was never claimed and the provider has it"
        if (
            effect["state"] == "succeeded"
            and len(there) > 1
            and not (effect["outcome"] or {}).get("possible_duplicate")
        ):
            yield f"I5 {effect_id} has {len(there)} copies and does not say so"


def _ordered(books: Books) -> Iterator[str]:
    """Never a refund before its charge has ended, and none at the provider unless it has succeeded."""
    for effect_id, effect in books.effects.items():
        if effect["kind"] != "refund":
            continue
        charge = str(effect["concerns"])
        ended = [x["at"] for x in books.journal[charge] if x["fact"] in FINAL or x["evidence"].get("answer") in FINAL]
        begun = [x["at"] for x in books.journal[effect_id] if x["fact"] == "claimed"]
        if begun and (not ended or begun[0] < ended[0]):
            yield f"I5 {effect_id} was begun before its charge {charge} had ended"
        if books.money_of.get(effect_id) and books.effects[charge]["state"] != "succeeded":
            yield f"I5 {effect_id} gave back what {charge} never took"


def _one_key(books: Books) -> Iterator[str]:
    """I6 the key of a step is one string for ever, and a confirm always names the same intent."""
    intents: dict[str, set[str]] = defaultdict(set)
    for row in books.asked:
        if row["method"] != "POST":
            continue
        effect_id, _, step = str(row["idempotency_key"] or "").partition(":")
        if effect_id not in books.effects or step not in _STEPS or step != _step_of(row):
            yield f"I6 {row['path']} was asked under the key {row['idempotency_key']!r}"
        if step == "confirm":
            intents[effect_id].add(row["path"])
    for effect_id, paths in intents.items():
        if len(paths) > 1:
            yield f"I6 {effect_id} confirmed {len(paths)} intents"


def _step_of(row: Row) -> str:
    last = row["path"].rpartition("/")[2]
    return {"emails": "send", "refunds": "refund"}.get(last, last if last in _STEPS else "create")


def _duty(books: Books) -> Iterator[str]:
    """I7 an outbox row exactly while the effect is unsettled; parked in both places or in none."""
    for effect_id, effect in books.effects.items():
        settled, row = effect["state"] in FINAL, books.outbox.get(effect_id)
        if settled and row is not None:
            yield f"I7 {effect_id} is {effect['state']} and still has an outbox row"
        if not settled and row is None:
            yield f"I7 {effect_id} is {effect['state']} and has no outbox row: lost"
        if row is not None and (row["road"] == "parked") != (effect["state"] == "parked"):
            yield f"I7 {effect_id} is {effect['state']} and its outbox row is on the road {row['road']}"


def _explained(books: Books) -> Iterator[str]:
    """I8 and I9 the journal explains each state, attempts only grow, and nothing follows the end but late answers."""
    for effect_id, effect in books.effects.items():
        facts = books.journal[effect_id]
        if not facts or facts[0]["fact"] != "accepted" or sum(x["fact"] == "accepted" for x in facts) != 1:
            yield f"I8 {effect_id} has no single beginning"
        own = [x for x in facts if x["fact"] not in _BESIDE]
        attempts = [x["attempt"] for x in own]
        if attempts != sorted(attempts):
            yield f"I8 {effect_id}: attempts went back: {attempts}"
        claims = [x["attempt"] for x in own if x["fact"] == "claimed"]
        if claims != list(range(1, effect["attempt"] + 1)):
            yield f"I8 {effect_id} is at attempt {effect['attempt']} and its claims are {claims}"
        ends = [i for i, x in enumerate(own) if x["fact"] in FINAL]
        if len(ends) != (effect["state"] in FINAL) or (ends and ends[0] != len(own) - 1):
            yield f"I9 {effect_id} is {effect['state']}; its facts are {[x['fact'] for x in own]}"
        elif ends and own[-1]["fact"] != effect["state"]:
            yield f"I8 {effect_id} is {effect['state']} and its last fact is {own[-1]['fact']}"


def _receipts(books: Books) -> Iterator[str]:
    """One receipt for each succeeded charge that asked for one, none for any other."""
    caused = Counter(str(e["caused_by"]) for e in books.effects.values() if e["kind"] == "email" and e["caused_by"])
    for effect_id, effect in books.effects.items():
        if effect["kind"] != "charge":
            continue
        due = int(effect["state"] == "succeeded" and bool((effect["request"] or {}).get("receipt_email")))
        if caused[effect_id] != due:
            yield f"I1 {effect_id} is {effect['state']} and caused {caused[effect_id]} receipts instead of {due}"
