"""The restore drill: load, lose commits, see that nothing is sent, recover, let every caller repeat every key.

Judged at the provider's own books by its own sequence numbers, never by a clock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.lineage import Lineage
from tests.flow.oracle import Books
from tests.flow.system import System
from tests.flow.waiting import age

# Longer than a failover takes on a busy machine, so that a request that the provider holds is still waited for after it.
TIMES = {"PROVIDER_DEADLINE": "2.5", "LEASE": "9", "REDELIVERY": "9.5", "POLL": "0.2"}
ATTEMPT_STEP = 1_000
QUIET_SECONDS = 1.5  # several polls of the relay: whoever wanted to send would have
_HOUR_SECONDS = 3600
_POST = "POST"


@dataclass(frozen=True)
class Way:
    """One way back in time: what is prepared, where the loss begins, what makes it happen."""

    prepare: Callable[[Lineage], None]
    begin: Callable[[Lineage], None]
    strike: Callable[[Lineage], None]


WAYS = {
    "failover": Way(Lineage.follow, Lineage.fall_behind, Lineage.fail_over),
    "point-in-time": Way(Lineage.back_up, Lineage.mark_the_point, Lineage.restore_to_the_point),
    "old-copy": Way(lambda _: None, Lineage.copy_the_files, Lineage.put_the_files_back),
}


@dataclass
class Drill:
    """The system on a database that will go back in time. `keys` is everything any caller has ever asked for."""

    system: System
    database: Lineage
    keys: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    # --- callers -------------------------------------------------------------------------------------------------

    def ask(self, *keys: str, **options: Any) -> dict[str, str]:
        """Accept a charge for each key, new or repeated; the ids by key."""
        from tasks import charge

        wish = {"amount": 4200, "currency": "eur", "customer": "cus_1", "payment_method": "pm_card_visa"}
        calls = [{"kwargs": wish, "dedupe_key": self.full(key), **options} for key in keys]
        ids = dict(zip(keys, [result.id for result in charge.apply_many(calls)], strict=True))
        self.keys |= ids
        return ids

    def full(self, key: str) -> str:
        """As the caller's own database names it."""
        return f"order:{key}"

    def command(self, *words: str) -> tuple[int, dict[str, Any]]:
        """One `counterfoil …  --json`; its exit code and its document."""
        program = self.system.start(f"caller-{words[0]}", ["service", *words, "--json"])
        code = program.wait(60)
        lines = [line for line in program.text().splitlines() if line.startswith("{")]
        return code, dict(json.loads(lines[-1])) if lines else {}

    # --- the provider's view -------------------------------------------------------------------------------------

    def requests(self) -> list[dict[str, Any]]:
        return list(self.system.stripe.admin("requests")["requests"])

    def sends_after(self, seq: int) -> list[dict[str, Any]]:
        return [row for row in self.requests() if row["method"] == _POST and row["seq"] > seq]

    def last_seq(self) -> int:
        return max((row["seq"] for row in self.requests()), default=0)

    def movements(self) -> Counter[str]:
        """How often money moved, by the name that the provider was told of."""
        from service.core.keys import dedupe_hash

        names = {dedupe_hash("default", "charge", self.full(key)): key for key in self.keys}
        rows = self.system.stripe.admin("ledger")["money"]
        return Counter(names[row["metadata"]["dedupe"]] for row in rows if row["metadata"].get("dedupe") in names)

    # --- the story -----------------------------------------------------------------------------------------------

    def load(self, way: Way, *, kept: int, forgotten: int, lost: int) -> dict[str, str]:
        """Charges that the database will remember, ones that it will remember as not sent, and ones it will forget.

        Returns the ids of the forgotten and the lost: what is at the provider and not in the books that come.
        """
        relay, worker = self.system.relay(), self.system.worker()
        self.system.ready(worker)
        self.settled(self.ask(*(f"kept:{i}" for i in range(kept))))
        relay.kill()
        unsent = self.ask(*(f"forgotten:{i}" for i in range(forgotten)))
        self.ask("scheduled:0", countdown=_HOUR_SECONDS)
        way.begin(self.database)
        self.system.relay()
        gone = self.ask(*(f"lost:{i}" for i in range(lost)))
        self.settled({**unsent, **gone})
        self.lost = list(gone)
        return {**unsent, **gone}

    def settled(self, ids: dict[str, str]) -> None:
        self.system.settles(*ids.values(), seconds=60)

    def noticed(self) -> None:
        """The database says that it is in quarantine."""
        self.system.until(
            lambda: self.system.sql("select 1 from incarnations where quarantined_at is not null"),
            "the quarantine is written down",
        )

    def nothing_is_sent_after(self, seq: int) -> None:
        self.system.until(age(QUIET_SECONDS), "there was time to send")
        assert self.sends_after(seq) == []

    def everybody_repeats(self) -> None:
        self.ask(*(key for key in self.keys if key != "scheduled:0"))

    def everything_settles(self) -> None:
        open_ones = "select id, state from effects where state not in ('succeeded', 'failed') and dedupe_key <> 'order:scheduled:0'"
        self.system.until(lambda: not self.system.sql(open_ones), "everything is settled", 60)

    def books(self) -> Books:
        """What the oracle reads, with the names of the lost effects replaced by those that took over their money."""
        found = self.system.oracle.books()
        adopted = self.system.sql("select effect_id, adopted_by from orphans where adopted_by is not null")
        heirs = {str(row["effect_id"]): str(row["adopted_by"]) for row in adopted}
        for row in found.asked:
            effect_id, mark, step = str(row["idempotency_key"] or "").partition(":")
            row["idempotency_key"] = f"{heirs.get(effect_id, effect_id)}{mark}{step}"
        for old, new in heirs.items():
            found.money_of.setdefault(new, []).extend(found.money_of.pop(old, []))
        for effect_id, facts in found.journal.items():
            _count_without_the_step(found.effects.get(effect_id), facts)
        return found

    def oracle_agrees(self) -> Books:
        found = self.books()
        scheduled = self.keys["scheduled:0"]
        wrong = self.system.oracle.violations(found, unfinished=(scheduled,))
        assert not wrong, "\n".join(["the oracle objects:", *wrong])
        return found


def _count_without_the_step(effect: dict[str, Any] | None, facts: list[dict[str, Any]]) -> None:
    """Recovery raises attempts by a step, so that no attempt of the lost life is taken for one of this."""
    recovered = [fact for fact in facts if fact["fact"] == "recovered" and "was" in fact["evidence"]]
    if not recovered or effect is None:
        return
    facts[:] = [fact for fact in facts if fact["fact"] != "recovered"]
    for thing in (effect, *facts):
        thing["attempt"] %= ATTEMPT_STEP
