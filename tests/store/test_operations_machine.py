"""However plans, relays, workers and people interleave, nothing is done twice, and nobody touches what is not theirs.

Hypothesis draws the order: plan, start, drive, pause, cancel, park, unpark, paused lanes, claims, lost leases, late
answers, repeated messages. After each step the tables are asked, and at the end everything still comes to rest.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from service.core.effect import Attempt
from service.core.errors import ValidationError
from service.core.operation import Pace, Planned, Selection, Verb
from service.core.state import State
from service.engine import drive, lanes, operations
from service.engine.relay import Relay
from service.settings import Settings
from service.store import attempts, database
from service.store import glance as looked
from service.store import operations as stored
from tests.conftest import forget_process_state
from tests.server import Server
from tests.store.answers import final, parked, waiting
from tests.store.books import ACTOR, LIMITS, Books, opened, order
from tests.store.script import RecordingPublisher

# The same few hundred steps in every run: what is drawn here is a matter of the code, never of the day.
BOUNDED = settings(
    max_examples=8,
    stateful_step_count=40,
    derandomize=False,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # each step is a few statements; a counter-example need not be small to be one
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
# What a drawing meets depends on the database's clock as well (paces, leases): too little met, and it goes on drawing.
DRAWINGS = range(1, 16)
# Other orders with each seed: two minutes and a half of one core. 160 and more are for a free afternoon.
LONG_EXAMPLES = int(os.environ.get("COUNTERFOIL_TEST_EXAMPLES", "60"))
EFFECTS = 6
LANES = ("charge", "slow")
PERSON = {"actor": "ada@host", "door": "cli"}
FINAL = ("succeeded", "failed")
PACES = [Pace(), Pace(), Pace(per_second=2.0), Pace(canary=1), Pace(failures_max=0), Pace(batch=1)]
ANSWERS = ["succeeded", "failed", "deferred", "deferred", "unknown", "unknown", "parked", "parked", "awaiting"]
END = Random(0)
# What happens how often: most of it is what relays and workers do all day.
MIX = [
    *["somebody_plans_and_starts"] * 4, "somebody_plans", "somebody_starts", *["somebody_intervenes"] * 2,
    *["somebody_pauses_a_lane_or_resumes_it"] * 2, *["a_relay_drives"] * 4, *["a_relay_relays"] * 4,
    *["a_worker_claims"] * 6, *["a_worker_settles"] * 5, *["a_lease_runs_out"] * 2, *["time_passes"] * 3,
]  # fmt: skip
ROUNDS_MAX = 60  # until everything rests: each round hands over whatever is due

# What no operation may change, of any effect: its key, its request, what was sent, and what it is worth.
_FROZEN = """
select id::text as id, dedupe_key, fingerprint, request, amount, currency, provider_ref, progress, first_sent_at,
       attempt, budget_from, in_doubt, state, lease_until, settled_at, outcome,
       state = 'executing' and lease_until >= now() as live from effects order by id
"""
_PLAIN = ("dedupe_key", "fingerprint", "request", "amount", "currency", "first_sent_at", "progress", "attempt")
_TOLD = """
select j.effect_id::text as id, j.fact, j.evidence ->> 'operation' as operation from journal j
where j.evidence ? 'operation' order by j.id
"""

_STANDING = """
select o.id::text as id, o.state, o.total, coalesce(array_agg(i.effect_id::text order by i.position)
           filter (where i.effect_id is not null), '{}') as frozen,
       count(*) filter (where i.result = 'waiting') as waiting,
       coalesce(array_agg(i.effect_id::text) filter (where i.result = 'done'), '{}') as done
from operations o left join operation_items i on i.operation_id = o.id group by o.id
"""
_SEEN = """
select operation_id::text as operation, effect_id::text as id, seen_state as state, seen_attempt as attempt
from operation_items
"""


class Operating(RuleBasedStateMachine):
    """Effects of two lanes, workers with their attempts (zombies among them), people with their operations."""

    server: ClassVar[Server]
    template: ClassVar[str]
    patch: ClassVar[pytest.MonkeyPatch]
    hits: ClassVar[Counter[str]]

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        name = self.stack.enter_context(self.server.database(template=self.template))
        self.patch.setenv("COUNTERFOIL_DATABASE_URL", self.server.url_of(name))
        forget_process_state()
        self.stack.callback(forget_process_state)
        self.books: Books = self.stack.enter_context(opened(self.server.url_of(name)))
        self.ids = self.books.accept(*(order(f"order:{n}", lane=LANES[n % 2]) for n in range(EFFECTS)))
        self.steps = 0
        self.attempts: list[Attempt] = []
        self.messages: list[str] = []
        self.plans: list[Planned] = []
        self.quiet: dict[str, int] = {}  # operations that must not do anything now: how much each had done
        self.ledger: dict[str, str] = {}  # what each effect has settled as, as whoever settled it was told
        self.requests = {row["id"]: (row["dedupe_key"], row["fingerprint"], row["request"]) for row in self.effects()}

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        try:
            if sys.exc_info()[0] is None:
                self.everything_comes_to_rest()
        finally:
            self.stack.close()

    @rule(what=st.sampled_from(MIX), drawn=st.integers(0, 2**32))
    def something_happens(self, what: str, drawn: int) -> None:
        """One rule for all: Hypothesis leaves whole rules out of a run, and few of these can do without the others."""
        self.steps += 1
        getattr(self, what)(Random(f"{drawn} {self.steps}"))  # Hypothesis likes small numbers, and the same again

    # --- people ------------------------------------------------------------------------------------------------

    def somebody_plans(self, chance: Random) -> Planned:
        before = self.effects()
        some = chance.sample(self.ids, chance.randint(1, EFFECTS))
        held = self.books.rows("select effect_id::text as id from outbox where parked_reason = 'by_person'")
        verb = chance.choice([Verb.REPLAY, Verb.PARK, Verb.UNPARK if held else Verb.PARK])
        plan = operations.plan(verb, Selection(ids=tuple(some)), actor="ada@host", force=chance.random() < 0.5)
        assert self.effects() == before, "a plan has touched an effect"
        states = {row["id"]: row for row in before}
        assert not any(states[one]["live"] or states[one]["state"] in FINAL for one in plan.ids)
        self.plans.append(plan)
        self.quiet[plan.id] = 0
        return plan

    def somebody_plans_and_starts(self, chance: Random) -> None:
        self._start(self.somebody_plans(chance), chance)

    def somebody_starts(self, chance: Random) -> None:
        if self.plans:
            self._start(chance.choice(self.plans), chance)

    def _start(self, plan: Planned, chance: Random) -> None:
        standing = operations.show(plan.id).state
        try:
            operations.start(plan.id, reason="INC-42", pace=chance.choice(PACES), **PERSON)
        except ValidationError:
            assert standing != "planned"
        else:
            assert standing == "planned"
            del self.quiet[plan.id]

    def somebody_intervenes(self, chance: Random) -> None:
        """Of those that were started, if any: most have nothing to stop."""
        if not self.plans:
            return
        states = {row["id"]: row["state"] for row in self.books.rows("select id::text as id, state from operations")}
        paused = [plan for plan in self.plans if states[plan.id] == "paused"]
        running = [plan for plan in self.plans if states[plan.id] == "running"]
        if paused and chance.random() < 0.6:
            plan, what = chance.choice(paused), "resume"
        else:
            plan, what = chance.choice(running or self.plans), chance.choice(["pause", "pause", "cancel", "resume"])
        try:
            found = getattr(operations, what)(plan.id, **PERSON)
        except ValidationError:
            return
        self.hits[what] += 1
        if what == "resume":
            del self.quiet[plan.id]
        else:
            self.quiet[plan.id] = found.done

    def somebody_pauses_a_lane_or_resumes_it(self, chance: Random) -> None:
        self._lane(chance.choice(LANES), stop=chance.random() < 0.5)

    def _lane(self, lane: str, *, stop: bool) -> None:
        try:
            lanes.pause(lane, reason="slow", **PERSON) if stop else lanes.resume(lane, **PERSON)
        except ValidationError:
            assert self.books.one("select count(*) from lanes where name = %s and paused_at is not null", lane) == stop

    # --- relays ------------------------------------------------------------------------------------------------

    def a_relay_drives(self, chance: Random) -> None:
        seconds = chance.choice([0.0, 0.5, 3600.0])
        self.books.run("update operations set paced_at = paced_at - make_interval(secs => %s)", seconds)
        before, facts = {row["id"]: row for row in self.effects()}, len(self.told())
        drive.run_once()
        done = self.told()[facts:]
        self.hits.update(row["fact"] for row in done)
        seen = {(row["operation"], row["id"]): row for row in self.books.rows(_SEEN)}
        first = {row["id"]: row["operation"] for row in reversed(done)}  # the others found what the first one left
        for effect_id, operation in first.items():
            was, frozen = before[effect_id], seen[operation, effect_id]
            assert (was["state"], was["attempt"]) == (frozen["state"], frozen["attempt"]), "it had changed since"
        for row in self.effects():
            was = before[row["id"]]
            if was["live"] or was["state"] in FINAL or row["id"] not in first:
                assert row == was, "an operation touched what is settled, at work, or not its own"
            assert {name: row[name] for name in _PLAIN} == {name: was[name] for name in _PLAIN}
            assert row["in_doubt"] or not was["in_doubt"], "what is in doubt stays in doubt"

    def a_relay_relays(self, _chance: Random) -> None:
        stopped = {row["name"] for row in self.books.rows("select name from lanes where paused_at is not null")}
        publisher = RecordingPublisher()
        Relay(publisher, Settings(), actor="relay").run_once()
        assert not stopped & {message.lane for message in publisher.messages}, "a paused lane was published"
        self.messages += publisher.ids
        self.hits["held in a paused lane"] += self.books.one("select count(*) from outbox where road = 'held'")

    # --- workers -----------------------------------------------------------------------------------------------

    def a_worker_claims(self, chance: Random) -> None:
        """Now and then the broker keeps the message and delivers it once more (W4, W10)."""
        if self.messages:
            n = chance.randrange(len(self.messages))
            self._claim(self.messages[n] if chance.random() < 0.3 else self.messages.pop(n))

    def _claim(self, effect_id: str) -> None:
        standing = self.books.effect(effect_id)["state"]
        with database.statement() as connection:
            claimed = attempts.claim(connection, [effect_id], LIMITS, actor=ACTOR)
        assert not claimed or standing not in (*FINAL, "parked")
        self.attempts += claimed
        self.hits["claimed"] += len(claimed)

    def a_worker_settles(self, chance: Random) -> None:
        """Any attempt there ever was: one whose lease has run out is a zombie (I9)."""
        if self.attempts:
            self._settle(self.attempts.pop(chance.randrange(len(self.attempts))), chance.choice(ANSWERS))

    def _settle(self, attempt: Attempt, how: str) -> None:
        match how:
            case "succeeded":
                answer = final(attempt)
            case "failed":
                answer = final(attempt, State.FAILED, outcome={"code": "card_declined"})
            case "parked":
                answer = parked(attempt)
            case "deferred":
                answer = waiting(attempt, in_doubt=attempt.in_doubt)
            case _:
                answer = waiting(attempt, State(how), how)
        with database.statement() as connection:
            owned = attempts.settle(connection, [answer], actor=ACTOR)
        self.hits["a zombie's answer"] += not owned
        if owned and how in FINAL:
            assert attempt.id not in self.ledger, "settled twice"
            self.ledger[attempt.id] = how

    def a_lease_runs_out(self, chance: Random) -> None:
        """The worker is dead or paused: its row comes due, the next relay finds the lease over."""
        if not self.attempts:
            return
        attempt = chance.choice(self.attempts)
        over = "update effects set lease_until = now() - interval '1 second' where id = %s and state = 'executing'"
        if self.books.run(f"{over} and attempt = %s", attempt.id, attempt.number):
            self.hits["lost leases"] += 1
            self._make_due(attempt.id)

    def time_passes(self, chance: Random) -> None:
        """The backoff or the redelivery time is over."""
        self._make_due(chance.choice(self.ids))

    def _make_due(self, effect_id: str) -> None:
        """What is parked or held has no time."""
        duty = self.books.duty(effect_id)
        if duty and duty["road"] in ("later", "published"):
            self.books.make_due(effect_id)

    # --- what always holds -------------------------------------------------------------------------------------

    @invariant()
    def the_books_hold(self) -> None:
        if not hasattr(self, "books"):
            return
        self.books.check()
        rows = self.effects()
        assert {row["id"]: row["state"] for row in rows if row["state"] in FINAL} == self.ledger
        assert {row["id"]: (row["dedupe_key"], row["fingerprint"], row["request"]) for row in rows} == self.requests
        settled = self.books.rows(
            "select effect_id from journal where fact in ('succeeded', 'failed') group by 1 having count(*) > 1"
        )
        assert settled == [], "settled twice"

    @invariant()
    def each_operation_keeps_to_its_plan(self) -> None:
        if not hasattr(self, "books"):
            return
        told = {(row["operation"], row["id"]) for row in self.told()}
        assert len(told) == len(self.told()), "one operation did one effect twice"
        standing = {row["id"]: row for row in self.books.rows(_STANDING)}
        assert told == {(id_, one) for id_, row in standing.items() for one in row["done"]}, "journal and plan disagree"
        for plan in self.plans:
            found = standing[plan.id]
            assert tuple(found["frozen"]) == plan.ids, "the frozen set has changed"
            assert found["total"] == len(plan.ids)
            if found["state"] in ("done", "stopped"):
                self.quiet.setdefault(plan.id, len(found["done"]))
            if plan.id in self.quiet:
                assert len(found["done"]) == self.quiet[plan.id], f"{found['state']}, and it went on"
            assert found["state"] != "done" or not found["waiting"]

    # --- and in the end ----------------------------------------------------------------------------------------

    def everything_comes_to_rest(self) -> None:
        """I10, with the people who are needed for what is parked: lanes are resumed, and what is parked is replayed."""
        for lane in LANES:
            self._lane(lane, stop=False)
        for effect_id in self.ids:
            self.books.run(
                "update effects set lease_until = now() - interval '1 second' where id = %s and state = 'executing'",
                effect_id,
            )
        for _ in range(ROUNDS_MAX):
            left = [row["id"] for row in self.effects() if row["state"] not in FINAL]
            if not left:
                break
            self._push_on(left)
        assert [row for row in self.effects() if row["state"] not in FINAL] == [], "not everything came to rest"
        for plan in self.plans:  # a canary or a limit may have stopped it; else it ends by itself
            if operations.show(plan.id).state == "running":
                self.a_relay_drives(END)
        self.the_books_hold()
        self.each_operation_keeps_to_its_plan()

    def _push_on(self, left: list[str]) -> None:
        plan = operations.plan(Verb.REPLAY, Selection(ids=tuple(left)), actor="ada@host", force=True)
        self.plans.append(plan)
        operations.start(plan.id, reason="the end", **PERSON)
        self.a_relay_drives(END)
        self.a_relay_relays(END)
        while self.messages:
            self._claim(self.messages.pop())
        while self.attempts:
            self._settle(self.attempts.pop(), "succeeded")

    # --- looking -----------------------------------------------------------------------------------------------

    def effects(self) -> list[dict[str, Any]]:
        return self.books.rows(_FROZEN)

    def told(self) -> list[dict[str, Any]]:
        return self.books.rows(_TOLD)


@pytest.fixture
def machine(postgres: Server, template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Operating]]:
    Operating.server, Operating.template, Operating.patch = postgres, template, monkeypatch
    Operating.hits = Counter()
    yield Operating
    forget_process_state()


def test_operations_relays_workers_and_people_in_any_order_break_no_promise(machine):
    wanted = {"replayed", "parked", "unparked", "claimed", "lost leases", "a zombie's answer", "held in a paused lane"}
    wanted |= {"pause", "resume", "cancel"}
    for number in DRAWINGS:
        run_state_machine_as_test(seeded(number)(machine), settings=BOUNDED)
        if wanted <= {what for what, often in machine.hits.items() if often}:
            return
    raise AssertionError(f"never met: {machine.hits}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nor_in_many_more_orders_that_a_seed_draws(machine, seed):
    long = settings(BOUNDED, max_examples=LONG_EXAMPLES)
    run_state_machine_as_test(seeded(seed)(machine), settings=long)


def _one_drawing_after_the_other(machine: type[Operating]) -> None:
    for number in DRAWINGS:
        run_state_machine_as_test(seeded(number)(machine), settings=BOUNDED)


def _changed(patch: pytest.MonkeyPatch) -> None:
    """Who has claimed, settled, parked or replayed an effect since the plan is not asked after."""
    seen = "e.state = i.seen_state and e.attempt = i.seen_attempt"
    for statement in (stored._REPLAY, stored._PARK, stored._UNPARK):
        assert seen in statement.text, "the guard has another text now"
        patch.setattr(statement, "text", statement.text.replace(seen, "true"))


def _pause(patch: pytest.MonkeyPatch) -> None:
    held = str(stored._HOLD)
    assert "state = 'running'" in held
    patch.setattr(stored, "_HOLD", text(held.replace("state = 'running'", "started_at is not null")))
    seen = str(looked._GLANCE)
    assert "operations where state = 'running'" in seen
    patch.setattr(looked, "_GLANCE", text(seen.replace("state = 'running'", "started_at is not null")))


def _lane(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Relay, "_not_paused", lambda _relay, taken: taken)


WITHOUT: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "what changed since the plan is left alone": _changed,
    "a paused or ended operation does nothing": _pause,
    "a paused lane is not published": _lane,
}


# The others wait for `make chaos`.
SOON = "what changed since the plan is left alone"


@pytest.mark.parametrize("guard", [g if g == SOON else pytest.param(g, marks=pytest.mark.slow) for g in WITHOUT])
def test_without_its_guard_the_machine_finds_the_broken_promise(machine, monkeypatch, guard):
    WITHOUT[guard](monkeypatch)
    with pytest.raises(Exception, match=r"changed since|at work|went on|was published|refused|constraint") as caught:
        _one_drawing_after_the_other(machine)
    assert not isinstance(caught.value, AttributeError | NameError)
