"""The provider is killed with requests in its hands, or away for ten minutes: no retry storm, and every charge once (I11)."""

from __future__ import annotations

from statistics import mean

import pytest

from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.flow.system import System
from tests.flow.waiting import age
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
OUTAGE_SECONDS = 600.0
# Time goes on by so much at least: a few tries come later than they might, and the hour of the test is spared.
STEP_SECONDS = 8.0
INTENTS = 18
# Backoff doubles from two seconds to ten minutes with full jitter: on average some nine tries in ten minutes, and an
# unlucky effect twice that. A fixed pause of two seconds would be three hundred. While the circuit is open it is less:
# one tries for all.
ATTEMPTS_MEAN_MAX, ATTEMPTS_MAX = 16.0, 40
QUIET_SECONDS = 0.3
# When the next one may be tried: it is due, its backoff is over, and so is the wait of its provider's circuit.
_SOONEST = """
select extract(epoch from min(greatest(o.available_at, e.not_before, c.probe_at)) - now())::float8 as due,
       coalesce(sum((e.state = 'executing')::int), 0) as busy
from outbox o join effects e on e.id = o.effect_id left join circuits c on o.kind = any(c.kinds)
where o.road <> 'parked'
"""


def test_both_providers_killed_under_load_and_started_again(
    house: House, valkey_wire: ValkeyWire, database: str
) -> None:
    trial = house(database, valkey_wire)
    trial.begin()
    for n, fake in ((8, trial.system.stripe), (16, trial.system.mail), (24, trial.system.stripe)):
        trial.load.reaches(n)
        fake.kill()
        trial.system.until(age(1.0), "it was away for a while")
        fake.start()
    trial.judged("providers killed", providers_killed=3)


@pytest.mark.parametrize("fault", ["status_502_html", "close_before", "status_429"])
def test_ten_minutes_without_the_provider_are_no_storm(
    house: House, valkey_wire: ValkeyWire, database: str, fault: str
) -> None:
    """Ten minutes of the database's time, which pass as soon as everybody has nothing to do."""
    trial = house(database, valkey_wire)
    system = trial.system
    trial.begin(INTENTS)
    trial.load.reaches(4)
    for fake in (system.stripe, system.mail):
        fake.reset()
        fake.fault(fault, times=None)
    trial.load.ends()
    passed = 0.0
    while passed < OUTAGE_SECONDS:
        seconds = max(_until_all_wait(system), STEP_SECONDS)
        _pass(system, seconds)
        passed += seconds
    away = system.sql("select attempt from effects where state not in ('succeeded', 'failed', 'parked')")
    attempts = [int(row["attempt"]) for row in away]
    assert len(attempts) > INTENTS // 2, "the outage met nobody"
    print(f"{len(attempts)} effects, {mean(attempts):.1f} attempts on average, {max(attempts)} at most")
    assert mean(attempts) <= ATTEMPTS_MEAN_MAX
    assert max(attempts) <= ATTEMPTS_MAX
    for fake in (system.stripe, system.mail):
        fake.reset()
    # What is left of the last backoff.
    _pass(system, OUTAGE_SECONDS)
    trial.judged(f"ten minutes of {fault}", provider_outages=1)


def _until_all_wait(system: System) -> float:
    """Seconds until the next one is due, when nobody is at work."""

    def waiting() -> float:
        [row] = system.sql(_SOONEST)
        return 0.0 if row["busy"] or row["due"] is None or row["due"] < QUIET_SECONDS else float(row["due"])

    return float(system.until(waiting, "everybody waits for a later try", 60))


def _pass(system: System, seconds: float) -> None:
    """To everybody who looks at the database that is the same as waiting."""
    moved = f"interval '{seconds} seconds'"
    # Two statements, rows in the order in which attempts are claimed: whoever works meanwhile is not to be in each
    # other's way with us.
    system.sql(f"update outbox set available_at = available_at - {moved} where road <> 'parked'")
    system.sql(
        "with open as (select id from effects where not_before is not null and state not in ('succeeded', 'failed')"
        " order by id for no key update)"
        f" update effects e set not_before = e.not_before - {moved} from open where e.id = open.id"
    )
    system.sql(f"update circuits set probe_at = probe_at - {moved}, opened_at = opened_at - {moved}")
