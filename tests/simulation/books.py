"""What the provider has done: PaymentIntents, refunds, letters, its memory of keys, and a count of every movement.

This is the ledger that the promises are checked against, and nothing in it is read by the service but through answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from tests.simulation.database import LIMITS, Broken, Database
from tests.simulation.hub import WALL_SECONDS, Hub
from tests.simulation.nemesis import F4, F5, HOUR, ROLLED, Nemesis

KEYS_KEPT_SECONDS = 24 * HOUR
LEASE = LIMITS.lease
Answer = tuple[int, dict[str, Any] | None, dict[str, Any] | None, bool]
"""Status, object, error, and whether it comes out of the key's memory."""
_UNEXPECTED = {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}
_DECLINED = {"type": "card_error", "code": "card_declined", "message": "declined"}
_SERVER = {"type": "api_error"}


class Books:
    """One account at Stripe, and one mail server."""

    def __init__(self, hub: Hub, nemesis: Nemesis, random: Random, database: Database) -> None:
        self.hub, self.nemesis, self.random, self.database = hub, nemesis, random, database
        self.moved: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.spared: set[str] = set()
        self.late: set[str] = set()
        self.intents: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.made_by: dict[str, str] = {}
        self.keys: dict[str, tuple[float, str, Answer]] = {}
        self.seen: dict[str, set[str]] = {}
        self.second_key = False
        self.limits: dict[str, int] = {}
        self.tell: Callable[[str], None] = lambda _: None
        self._count = 0

    def move(self, effect: str) -> None:
        """The effect is done; that is what may not happen twice (I1), nor for nobody (I3)."""
        row = self.database.ever.get(effect)
        if row is None:
            raise Broken(f"I3 {effect} was done and was never accepted")
        name = row.dedupe_key
        self.moved[effect] += 1
        self.done[name] += 1
        self.database.say(row, "DONE AT THE PROVIDER")
        if row.kind == "refund" and effect not in self.database.rows and self.hub.now > self.database.left_at + LEASE:
            # Later than a lease after the database went back: told in docs/recover.md as what can still go wrong.
            self.nemesis.hits["a forgotten refund lands late"] += 1
            self.limits[name] = self.limits.get(name, 1) + 1
            self.late.add(effect)
        if self.done[name] > self.limits.get(name, 1):
            raise Broken(f"I1 {name} was done {self.done[name]} times, now as {effect}")
        if row.state == "failed" and effect in self.database.rows:
            raise Broken(f"I5 {effect} is failed and was done afterwards")

    # --- keys --------------------------------------------------------------------------------------------------------

    def once(self, key: str, subject: str, fate: str, work: Callable[[], Answer]) -> Answer:
        """Do it, or answer what was answered to this key. `fate` F4 and F5: a 500 that is kept, without or with effect."""
        effect, _, step = key.partition(":")
        self._one_key(effect, step)
        known = self.keys.get(key)
        if known and known[0] > self.hub.now:
            self.nemesis.hits["answered from the key's memory"] += 1
            if known[1] != subject:
                return 400, None, {"type": "idempotency_error"}, False
            status, body, error, _ = known[2]
            return status, body, error, True
        answer = self._stored_500(effect, fate, work) if fate in (F4, F5) else work()
        if answer[0] != 400 or fate:
            self.keys[key] = (self.hub.now + KEYS_KEPT_SECONDS, subject, answer)
        return answer

    def _one_key(self, effect: str, step: str) -> None:
        """I6: a step has one key for ever; the part after the step would be another one."""
        name, _, more = step.partition(":")
        known = self.seen.setdefault(f"{effect}:{name}", set())
        known.add(more)
        if len(known) > 1:
            self.second_key = True

    def _repair(self, given: tuple[str, Callable[[], Answer]]) -> None:
        """Rolled forward. One that is parked as absent by then is a limit of the promise, told in docs/simulation.md."""
        effect, work = given
        row = self.database.ever[effect]
        if row.state == "parked" and row.parked_reason == "absent":
            row.released = True
            self.nemesis.hits["repaired after two misses"] += 1
        work()

    def _stored_500(self, effect: str, fate: str, work: Callable[[], Answer]) -> Answer:
        if fate == F5:
            work()
        elif self.random.random() < 0.5 and self.database.ever[effect].kind != "email":
            # Repaired within hours, and the key says 500 all the same (Stripe: Advanced error handling).
            self.nemesis.hits[ROLLED] += 1
            self.hub.at(self.random.uniform(60.0, 12 * HOUR), self._repair, (effect, work))
        return 500, None, _SERVER, False

    def _thinks(self) -> float:
        """Banks take days; each poll is like the one before it, so here they mostly take minutes."""
        return self.random.uniform(5.0, 180.0) if self.random.random() < 0.99 else self.random.uniform(0.0, 6 * HOUR)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    # --- PaymentIntents ----------------------------------------------------------------------------------------------

    def create(self, params: dict[str, Any], key: str) -> Answer:
        ref = self._name("pi")
        self.intents[ref] = intent = {
            "object": "payment_intent", "id": ref, "status": "requires_confirmation", "amount": params["amount"],
            "currency": params["currency"], "livemode": False, "metadata": params["metadata"], "latest_charge": None,
            "manual": params.get("capture_method") == "manual", "customer": params.get("customer"),
            "created": WALL_SECONDS + self.hub.now,
            "visible_at": self.hub.now + (self.random.uniform(1.0, HOUR) if self.nemesis.left else 0.0),
        }  # fmt: skip
        self.made_by[key] = ref
        return 200, dict(intent), None, False

    def confirm(self, ref: str, bank: str) -> Answer:
        intent = self.intents[ref]
        if intent["status"] != "requires_confirmation":
            return 400, None, _UNEXPECTED, False
        if bank == "declines":
            self._decline(intent)
            return 402, None, _DECLINED, False
        if bank in ("thinks", "thinks, then declines"):
            intent["status"] = "processing"
            self.hub.at(self._thinks(), self._bank_answers, (intent, bank == "thinks"))
        elif intent["manual"]:
            intent["status"] = "requires_capture"
            self.tell(ref)
        else:
            self._succeed(intent)
        return 200, dict(intent), None, False

    def _bank_answers(self, given: tuple[dict[str, Any], bool]) -> None:
        intent, good = given
        if intent["status"] != "processing":
            return
        if not good:
            self._decline(intent)
        elif intent["manual"]:
            intent["status"] = "requires_capture"
            self.tell(intent["id"])
        else:
            self._succeed(intent)

    def _decline(self, intent: dict[str, Any]) -> None:
        intent["status"], intent["last_payment_error"] = "requires_payment_method", _DECLINED
        self.tell(intent["id"])

    def _succeed(self, intent: dict[str, Any]) -> None:
        intent["status"], intent["latest_charge"] = "succeeded", f"ch_{intent['id']}"
        intent["amount_received"] = intent["amount"]
        self.move(intent["metadata"]["effect_id"])
        self.tell(intent["id"])

    def capture(self, ref: str, params: dict[str, Any]) -> Answer:
        intent = self.intents[ref]
        if intent["status"] != "requires_capture":
            return 400, None, _UNEXPECTED, False
        intent["metadata"] = {**intent["metadata"], **params["metadata"]}
        self._succeed(intent)
        intent["amount_received"] = params["amount_to_capture"]
        self.move(params["metadata"]["capture_effect_id"])
        return 200, dict(intent), None, False

    def cancel(self, ref: str, effect: str) -> Answer:
        intent = self.intents[ref]
        if intent["status"] in ("succeeded", "canceled"):
            return 400, None, _UNEXPECTED, False
        intent["status"] = "canceled"
        self.move(effect)
        self.tell(ref)
        return 200, dict(intent), None, False

    # --- refunds -----------------------------------------------------------------------------------------------------

    def refund(self, params: dict[str, Any], bank: str) -> Answer:
        ref, effect = params["payment_intent"], params["metadata"]["effect_id"]
        intent, charge = self.intents[ref], self.database.ever[self.database.ever[effect].concerns]
        if charge.state != "succeeded" and not self.database.lives:
            raise Broken(f"order: {effect} gives back what {charge.id} has not taken yet")
        given = sum(r["amount"] for r in self.refunds.values() if r["payment_intent"] == ref)
        if intent["status"] != "succeeded":
            return 400, None, {"type": "invalid_request_error", "code": "charge_not_captured"}, False
        if given + params["amount"] > intent["amount"]:
            return 400, None, {"type": "invalid_request_error", "code": "charge_already_refunded"}, False
        name = self._name("re")
        self.refunds[name] = thing = {
            "object": "refund", "id": name, "amount": params["amount"], "currency": intent["currency"],
            "payment_intent": ref, "metadata": params["metadata"], "status": "succeeded",
            "created": WALL_SECONDS + self.hub.now,
        }  # fmt: skip
        if bank.startswith("thinks"):
            thing["status"] = "pending"
            self.hub.at(self._thinks(), self._refund_arrives, thing)
        self.move(effect)
        return 200, dict(thing), None, False

    def _refund_arrives(self, thing: dict[str, Any]) -> None:
        thing["status"] = "succeeded"
        self.tell(thing["payment_intent"])

    # --- letters -----------------------------------------------------------------------------------------------------

    def letter(self, effect: str) -> Answer:
        self.move(effect)
        return 200, {"id": self._name("letter")}, None, False
