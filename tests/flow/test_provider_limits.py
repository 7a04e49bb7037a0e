"""Provider limits between real processes: one bucket for all workers, one circuit for all, and nobody needs to be alive."""

from __future__ import annotations

from typing import Any

from tests.flow.system import System

RATE = 20  # calls a second; a charge is two
SECOND_MAX = 2 * RATE
"""What any second may see: the pace, and what a loaded machine moved from the second before. Unlimited it is all."""
AHEAD = 10  # charges that a relay publishes ahead at this pace: a second's worth, and one


def test_two_workers_share_one_bucket_and_no_second_sees_more_than_the_account_allows(system: System) -> None:
    system.settings["STRIPE_RATE"] = str(RATE)
    workers = [system.ready(system.worker()) for _ in range(2)]
    ids = system.charges(30)
    system.relay()
    system.settles(*ids, seconds=60)
    system.oracle.check()
    times = _asked(system, ids)
    assert len(times) == 2 * len(ids), "each was created and confirmed once"
    busiest = max(sum(start <= at < start + 1 for at in times) for start in times)
    print(f"{len(times)} calls in {times[-1] - times[0]:.1f} s, {busiest} in the busiest second")
    assert busiest <= SECOND_MAX
    # Nine tenths of the pace flow; the first of them came with the burst, the last are still on their way.
    assert times[-1] - times[0] >= (len(times) - RATE) / (0.9 * RATE)
    assert all(worker.lines("settled") for worker in workers), "both had their share"
    assert {system.effect(effect_id)["attempt"] for effect_id in ids} == {1}


def test_a_flood_does_not_hold_up_what_is_urgent_beyond_what_is_published_ahead(system: System) -> None:
    system.settings["STRIPE_RATE"] = str(RATE)
    system.worker()
    flood = system.charges(2 * RATE)
    system.relay()
    system.until(lambda: _claimed(system, flood), "the flood has begun")
    urgent = system.charge(priority=9)
    system.settles(urgent)
    before = system.sql(
        "select count(*) as n from journal f, journal a, journal u where f.fact = 'claimed' and f.effect_id = any(%s)"
        " and a.effect_id = %s and a.fact = 'accepted' and u.effect_id = a.effect_id and u.fact = 'claimed'"
        " and f.id between a.id and u.id",
        flood, urgent,
    )[0]["n"]  # fmt: skip
    print(f"{before} of the flood were begun between acceptance and claim of the urgent one")
    assert before <= 2 * AHEAD
    system.settles(*flood, seconds=60)
    system.oracle.check()


def test_a_worker_killed_under_a_limit_takes_no_more_than_its_tokens_along(system: System) -> None:
    system.settings["STRIPE_RATE"] = str(2 * RATE)
    victim = system.ready(system.worker())
    ids = system.charges(2 * RATE)
    relay = system.relay()
    system.until(lambda: len(_claimed(system, ids)) >= AHEAD, "it is at work")
    victim.kill()
    relay.kill()
    system.relay()
    system.worker()
    system.settles(*ids, seconds=60)
    system.oracle.check()
    assert all(system.charged(effect_id) == 1 for effect_id in ids)


def test_a_dead_provider_burns_no_attempts_and_its_return_is_noticed(system: System) -> None:
    system.settings["CIRCUIT_FAILURES"] = "5"
    workers = [system.ready(system.worker()) for _ in range(2)]
    system.relay()
    system.stripe.kill()
    try:
        first = system.charges(5)
        system.until(lambda: _circuit(system).get("opened_at"), "the circuit is open")
        later = system.charges(10)
        system.until(lambda: _circuit(system)["probes"] >= 2, "it was asked for twice and more")
        circuit, tried = _circuit(system), sum(int(system.effect(effect_id)["attempt"]) for effect_id in later)
        assert tried <= circuit["probes"] + 1, "the later ones were tried by probes only"
        untouched = [effect_id for effect_id in later if system.effect(effect_id)["attempt"] == 0]
        assert all(system.facts(effect_id) == ["accepted"] for effect_id in untouched)
        assert untouched
    finally:
        system.stripe.start()
    system.settles(*first, *later, seconds=90)
    system.oracle.check()
    assert _circuit(system)["opened_at"] is None
    opened = [line for worker in workers for line in worker.lines("circuit_open")]
    closed = [line for worker in workers for line in worker.lines("circuit_closed")]
    assert (len(opened), len(closed)) == (1, 1), "one line each, whoever noticed"


def test_a_prober_that_is_killed_is_followed_by_another_one(system: System) -> None:
    """W7: the probe's request is with the provider when its worker dies; its effect is asked for by the same key."""
    system.settings["CIRCUIT_FAILURES"] = "3"
    victim = system.ready(system.worker())
    system.relay()
    system.stripe.kill()
    ids = system.charges(6)
    system.until(lambda: _circuit(system).get("opened_at"), "the circuit is open")
    system.stripe.start()
    with system.held("create") as barrier:
        barrier.reached()
        victim.kill()
        system.worker()
    system.settles(*ids, seconds=90)
    system.oracle.check()
    assert all(system.charged(effect_id) == 1 for effect_id in ids)


def _asked(system: System, ids: list[str]) -> list[float]:
    """When each call for these arrived, by the provider's clock."""
    wanted = set(ids)
    rows: list[dict[str, Any]] = system.stripe.admin("requests")["requests"]
    ours = [row for row in rows if str(row["idempotency_key"]).partition(":")[0] in wanted]
    return sorted(float(row["at"]) for row in ours)


def _claimed(system: System, ids: list[str]) -> list[dict[str, Any]]:
    return system.sql("select 1 from journal where fact = 'claimed' and effect_id = any(%s)", ids)


def _circuit(system: System) -> dict[str, Any]:
    return next(iter(system.sql("select * from circuits")), {})
