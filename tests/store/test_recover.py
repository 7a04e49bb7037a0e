"""Recovery: everything unsettled may have been sent, what was forgotten is found, and repeated keys adopt their money."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.core.effect import Policy
from service.core.errors import ValidationError
from service.core.state import State
from service.engine import audit, recover
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.providers.build import charge_provider, stripe_api
from service.providers.stripe.api import Call
from service.providers.stripe.charges import create_params
from service.settings import Settings
from service.store import attempts, incarnation, orphans, recovery
from service.store.attempts import Settlement
from service.store.database import statement
from tests.contract.fake_servers import FakeServer, running
from tests.store.books import ACTOR, LIMITS, Books, order, orders

CARD = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa"}
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(scope="module")
def stripe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("recover")) as fake:
        yield fake


@pytest.fixture
def settings(stripe: FakeServer, tmp_path: Path) -> Settings:
    return Settings(
        stripe_api_key="sk_test_recover", stripe_api_base=stripe.address["url"], state_dir=tmp_path, slots=4,
        provider_deadline=5, lease=20, redelivery=21,
    )  # fmt: skip


class House:
    """Books, a provider that is there, and the ways in which a database forgets."""

    def __init__(self, books: Books, settings: Settings, stripe: FakeServer) -> None:
        self.books = books
        self.settings = settings
        self.stripe = stripe
        self.before = max((row["seq"] for row in stripe.admin("ledger")["money"]), default=0)
        self.told: list[str] = []

    def charged(self, *keys: str) -> list[str]:
        """Charges that were really made."""
        ids = self.books.accept(*(order(key, request=CARD) for key in keys))
        assert self.run(*ids) == {"succeeded": len(ids)}
        return ids

    def run(self, *ids: str) -> dict[str, int]:
        for effect_id in ids:
            self.books.make_due(effect_id)
        provider = charge_provider(self.settings)
        return dict(Executor(self.settings, actor="worker").run(Kind("charge", provider=lambda: provider), ids).ended)

    def prepared_again(self, effect_id: str) -> str:
        """A newer PaymentIntent of the same name that nobody confirmed: a create leaves it whose answer is lost, when the
        look-up after it knows an older one only. Stripe lists the newest first.
        """
        with statement() as connection:
            attempt = attempts.standing(connection, effect_id)
        assert attempt
        call = Call(5.0, lambda: None)
        made = stripe_api(self.settings).create(create_params(attempt), f"{effect_id}:again", call, in_doubt=False)
        assert made.body
        return str(made.body["id"])

    def forget(self, *ids: str) -> None:
        """These commits were lost."""
        for table, column in (("outbox", "effect_id"), ("journal", "effect_id"), ("effects", "id")):
            self.books.run(f"alter table {table} disable trigger user")
            self.books.run(f"delete from {table} where {column} = any(%s::uuid[])", list(ids))
            self.books.run(f"alter table {table} enable trigger user")

    def unsettle(self, effect_id: str) -> None:
        """Only the claim was kept, and what followed it was lost."""
        self.books.run("alter table effects disable trigger user")
        self.books.run(
            "update effects set state = 'pending', attempt = 0, outcome = null, settled_at = null, provider_ref = null,"
            " provider = null, progress = '{}', first_sent_at = null where id = %s",
            effect_id,
        )
        self.books.run("alter table effects enable trigger user")
        self.books.run(
            "insert into outbox (effect_id, kind, lane, road) values (%s, 'charge', 'charge', 'fresh')", effect_id
        )
        self.books.run("alter table journal disable trigger user")
        self.books.run("delete from journal where effect_id = %s and fact <> 'accepted'", effect_id)
        self.books.run("alter table journal enable trigger user")

    def quarantine(self) -> None:
        with statement() as connection:
            incarnation.begin(connection, actor=ACTOR)
            assert incarnation.quarantine(connection, "a replica was promoted")

    def recover(self, since: datetime | None = LONG_AGO) -> recover.Done:
        return recover.execute(
            self.settings, since=since, actor="ada", reason="INC-42", tell=self.told.append, sleep=self.let_time_pass
        )

    def let_time_pass(self, _: float) -> None:
        self.books.run(
            "update incarnations set quarantined_at = quarantined_at - interval '1 hour' where released_at is null"
        )

    def audit(self) -> None:
        audit.run(self.settings, audit.Wish(LONG_AGO, lag_seconds=0), actor=ACTOR)

    def money(self, ids: set[str]) -> list[str]:
        rows = self.stripe.admin("ledger")["money"]
        return [row["metadata"]["effect_id"] for row in rows if row["metadata"].get("effect_id") in ids]


@pytest.fixture
def house(books: Books, settings: Settings, stripe: FakeServer) -> House:
    return House(books, settings, stripe)


# --- what may have been sent ---------------------------------------------------------------------------------------


def test_every_unsettled_effect_is_in_doubt_and_no_lost_attempt_can_carry_its_number(house, books):
    waiting, tried, parked = books.accept(*orders(3))
    [attempt] = books.claim(tried)
    books.claim(parked)
    books.settle(Settlement(parked, 1, State.PARKED, "parked", in_doubt=False, parked_reason="echo_mismatch"))
    house.quarantine()
    done = house.recover()
    assert done.doubted == 3
    found = {effect_id: books.effect(effect_id) for effect_id in (waiting, tried, parked)}
    assert {row["state"] for row in found.values()} == {"pending", "unknown", "parked"}
    assert all(row["in_doubt"] and row["first_sent_at"] for row in found.values())
    assert [row["attempt"] for row in found.values()] == [1000, 1001, 1001]
    assert found[waiting]["first_sent_at"] == found[waiting]["created_at"]
    assert books.settle(Settlement(tried, attempt.number, State.SUCCEEDED, "succeeded", False, outcome={})) == set()
    [claimed] = books.claim(waiting)
    assert (claimed.number, claimed.tries, claimed.in_doubt) == (1001, 1, True)
    assert books.facts(waiting) == ["accepted", "recovered", "claimed"]


def test_what_was_accepted_in_quarantine_or_is_scheduled_was_never_sent(house, books):
    [old] = books.accept(order("old"))
    [scheduled] = books.accept(order("next month", not_before=datetime.now(UTC) + timedelta(days=30)))
    house.quarantine()
    [fresh] = books.accept(order("since"))
    with statement() as connection:
        closed = incarnation.quarantined(connection)
        assert closed
        assert recovery.doubtful(connection, last_fact=closed.last_fact) == {"pending": 1}
    assert house.recover().doubted == 1
    assert [books.effect(effect_id)["in_doubt"] for effect_id in (old, scheduled, fresh)] == [True, False, False]


def test_a_recovery_that_was_cut_short_is_run_again_and_counts_nothing_twice(house, books):
    [effect_id] = books.accept()
    house.quarantine()
    with statement() as connection:
        closed = incarnation.quarantined(connection)
        assert closed
        assert recovery.doubt(connection, last_fact=closed.last_fact, actor="killed") == 1
        assert recovery.doubt(connection, last_fact=closed.last_fact, actor="again") == 0
    assert house.recover().doubted == 0
    assert books.effect(effect_id)["attempt"] == recovery.ATTEMPT_STEP


def test_a_letter_that_may_be_out_is_told_to_the_blind_provider(house, books):
    letters = books.accept(*(order(f"letter:{p}", kind="email", policy=p) for p in Policy))
    house.quarantine()
    house.recover()
    assert [books.effect(letter)["progress"] for letter in letters] == [{"unanswered": 1}] * 2


# --- what was forgotten --------------------------------------------------------------------------------------------


def test_forgotten_charges_are_found_and_a_repeated_key_goes_on_with_its_money(house, books):
    lost = house.charged("lost:1", "lost:2")
    house.forget(*lost)
    house.quarantine()
    [early] = books.accept(order("lost:1", request=CARD))  # before anybody knows what was lost
    planned = recover.plan(house.settings, since=LONG_AGO, tell=house.told.append)
    assert not planned.standing.open
    done = house.recover()
    assert done.found["orphans_with_money"] == planned.found["orphans_with_money"] >= 2
    opened = books.rows("select effect_id, amount from breaks where class = 'orphan_at_provider' and closed_at is null")
    assert {str(row["effect_id"]) for row in opened} >= set(lost)
    house.audit()
    [late] = books.accept(order("lost:2", request=CARD))
    assert house.run(early, late) == {"succeeded": 2}
    assert sorted(house.money({*lost, early, late})) == sorted(lost), "each charged once, under its old name"
    for effect_id, forgotten in ((early, lost[0]), (late, lost[1])):
        row = books.effect(effect_id)
        assert row["progress"]["effect_id"] == forgotten
        assert row["progress"]["payment_intent"] == row["provider_ref"]
    assert books.one("select count(*) from breaks where closed_at is null and effect_id = any(%s::uuid[])", lost) == 0
    assert books.one("select count(*) from orphans where adopted_by = any(%s::uuid[])", [early, late]) == 2
    house.audit()
    about = books.rows(
        "select class, subject, detail from breaks where closed_at is null and class = any(%s)"
        " and (effect_id = any(%s::uuid[]) or subject = any(%s))",
        ["orphan_at_provider", "missing_at_provider", "amount_mismatch", "duplicate_effect", "stale_key_send"],
        [early, late, *lost],
        [early, late],
    )
    assert about == [], "an audit agrees with what was adopted"
    orphan_breaks = (
        "select count(*) from breaks where class = 'orphan_at_provider' group by provider_ref order by 1 desc"
    )
    assert books.rows(orphan_breaks)[0]["count"] == 1, "found by both, it is one break"


def test_a_repeated_key_with_another_amount_takes_nothing_and_waits_for_a_person(house, books):
    [lost] = house.charged("lost:amount")
    house.forget(lost)
    house.quarantine()
    house.recover()
    [other] = books.accept(order("lost:amount", amount=9900, request={**CARD, "amount": 9900}))
    assert house.run(other) == {"parked": 1}
    assert books.duty(other)["parked_reason"] == "echo_mismatch"


def test_an_effect_whose_settlement_was_lost_is_pointed_to_its_money(house):
    [effect_id] = house.charged("unsettled")
    house.unsettle(effect_id)
    house.quarantine()
    assert house.recover().found["pointed"] == 1
    assert house.run(effect_id) == {"succeeded": 1}
    assert house.money({effect_id}) == [effect_id]


def test_of_two_payment_intents_an_unsettled_effect_is_pointed_to_the_one_that_moved_money(house, books):
    """In whatever order they are listed: a person who replays it a day later would confirm the other one as well."""
    [effect_id] = house.charged("unsettled twice")
    charged = books.effect(effect_id)["provider_ref"]
    house.prepared_again(effect_id)
    house.unsettle(effect_id)
    house.quarantine()
    assert house.recover().found["pointed"] == 1
    assert house.run(effect_id) == {"succeeded": 1}
    assert books.effect(effect_id)["provider_ref"] == charged
    assert house.money({effect_id}) == [effect_id]


def test_of_two_payment_intents_a_repeated_key_goes_on_with_the_one_that_moved_money(house, books):
    """Else it would confirm the other one at once, under a key of its own: a second charge."""
    [lost] = house.charged("lost twice")
    charged = books.effect(lost)["provider_ref"]
    house.prepared_again(lost)
    house.forget(lost)
    house.quarantine()
    house.recover()
    [again] = books.accept(order("lost twice", request=CARD))
    assert house.run(again) == {"succeeded": 1}
    assert books.effect(again)["provider_ref"] == charged
    assert house.money({lost, again}) == [lost]


def test_what_contradicts_a_settled_effect_is_a_break_and_changes_nothing(house, books):
    failed, other, amount = house.charged("says failed", "says another", "says less")
    books.run("alter table effects disable trigger user")
    books.run("update effects set state = 'failed', failed = true where id = %s", failed)
    books.run("update effects set provider_ref = 'pi_another' where id = %s", other)
    books.run("update effects set amount = 1, request = null where id = %s", amount)
    books.run("alter table effects enable trigger user")
    books.run("alter table journal disable trigger user")
    books.run("update journal set fact = 'failed' where effect_id = %s and fact = 'succeeded'", failed)
    books.run("alter table journal enable trigger user")
    house.quarantine()
    assert house.recover().found["contradictions"] == 3
    found = books.rows("select class, subject from breaks where closed_at is null and class <> 'orphan_at_provider'")
    assert {(row["class"], row["subject"]) for row in found} == {
        ("false_negative", failed),
        ("duplicate_effect", other),
        ("amount_mismatch", amount),
    }


def test_two_orphans_of_one_name_are_not_both_adopted(books):
    [first, second] = [
        orphans.Orphan("stripe", ref, "charge", order().id, "f" * 64, 4200, "eur", LONG_AGO) for ref in ("pi_1", "pi_2")
    ]
    with statement() as connection:
        assert orphans.keep(connection, first, incarnation=None)
        assert orphans.keep(connection, second, incarnation=None)
        assert not orphans.keep(connection, second, incarnation=None)
        assert orphans.count(connection) == 2
        assert [row["provider_ref"] for row in orphans.listed(connection, limit=5)] == ["pi_1", "pi_2"]
    assert books.rows("select provider_ref from orphans where dedupe_hash is null") == [{"provider_ref": "pi_2"}]


# --- the release ---------------------------------------------------------------------------------------------------


def test_the_release_waits_until_attempts_of_the_lost_life_are_over_and_is_written_down(house, books):
    house.quarantine()
    done = house.recover()
    assert any(line.startswith("waiting") for line in house.told)
    row = books.rows("select * from incarnations order by id")[-1]
    assert (row["id"], row["released_by"], row["release_reason"]) == (done.incarnation, "ada", "INC-42")
    assert row["counts"]["orphans"] == done.found["orphans"]


def test_without_a_quarantine_there_is_nothing_to_recover_unless_a_person_knows_better(house, books):
    [effect_id] = books.accept()
    with statement() as connection:
        attempts.claim(connection, [effect_id], LIMITS, actor=ACTOR)
    with pytest.raises(ValidationError, match="--since"):
        house.recover(since=None)
    done = house.recover(since=LONG_AGO)
    assert (done.doubted, books.effect(effect_id)["state"]) == (1, "unknown")
    assert books.rows("select quarantine_reason from incarnations order by id")[-1]["quarantine_reason"].startswith(
        "a person"
    )


def test_a_database_that_knows_no_claim_asks_for_all_since_its_life_began(house, books):
    """What was accepted after it went back must not move the beginning, or the first charges would be sent again."""
    with statement() as connection:
        books.accept()
        assert recovery.known_until(connection).year == 2010
        incarnation.begin(connection, actor=ACTOR)
        began = recovery.known_until(connection)
    assert abs(datetime.now(UTC) - began) < timedelta(minutes=1)
    books.accept(order("since"))
    house.quarantine()
    assert recover.plan(house.settings, since=None, tell=house.told.append).since == began - recover.MARGIN


def test_a_recovery_that_was_cut_short_asks_from_the_same_moment_again(house, books):
    """It has marked what was accepted since as sent then, and must not believe its own mark."""
    [tried] = books.accept()
    books.claim(tried)
    house.quarantine()
    before = recover.plan(house.settings, since=None, tell=house.told.append).since
    books.accept(order("late"))  # before anybody has noticed
    with statement() as connection:
        assert recovery.doubt(connection, last_fact=1_000_000, actor=ACTOR) == 2
    assert recover.plan(house.settings, since=None, tell=house.told.append).since == before


def test_the_provider_is_asked_from_before_the_last_claim_that_is_known(house, books):
    [tried, _] = books.accept(*orders(2))
    books.claim(tried)
    house.quarantine()
    [claimed] = books.rows("select at from journal where effect_id = %s and fact = 'claimed'", tried)
    claimed_at = claimed["at"]
    assert recover.plan(house.settings, since=None, tell=house.told.append).since == claimed_at - recover.MARGIN
    assert house.recover(since=None).since == claimed_at - recover.MARGIN
