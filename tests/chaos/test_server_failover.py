"""The primary dies under load and its synchronous replica takes over: nothing that was acknowledged is lost.

That nothing is lost nobody can know at first: the timeline is another one, so nothing is sent until a person has released
it. What a replica that lags loses is the business of test_restore_drill.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.drill import TIMES, _count_without_the_step
from tests.chaos.lineage import lineage
from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.contract.fake_servers import FakeServer, running
from tests.flow.oracle import Books
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture
def stripe_fake(tmp_path: Path):  # type: ignore[no-untyped-def]
    """One of this test's own: what other tests have left at the provider would be orphans here."""
    with running("stripe", tmp_path / "stripe") as fake:
        yield fake


def test_a_synchronous_replica_takes_over_under_load(
    house: House, valkey_wire: ValkeyWire, stripe_fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lineage() as database:
        database.follow()
        database.primary.ask("alter system set synchronous_standby_names = '*'")
        database.primary.ask("select pg_reload_conf()")
        monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", database.url)
        monkeypatch.setenv("COUNTERFOIL_STATE_DIR", str(tmp_path))
        trial = house(database.url, valkey_wire, **TIMES)
        system = trial.system
        from service.store import schema

        schema.upgrade()
        trial.begin()
        trial.load.reaches(20)
        database.fail_over()
        # Its own replica is yet to come.
        database.primary.ask("alter system set synchronous_standby_names = ''")
        database.primary.ask("select pg_reload_conf()")
        system.until(
            lambda: system.sql("select 1 from incarnations where quarantined_at is not null"), "the quarantine is noted"
        )
        sent = len(stripe_fake.admin("requests")["requests"])
        trial.load.ends()
        before = [row for row in stripe_fake.admin("requests")["requests"][sent:] if row["method"] == "POST"]
        assert before == [], "sent before the release"
        program = system.start("caller-recover", ["service", "recover", "--execute", "--reason", "drill", "--json"])
        assert program.wait(60) == 0, program.text()
        [line] = [line for line in program.text().splitlines() if line.startswith("{") and '"orphans_listed"' in line]
        assert json.loads(line)["orphans_with_money"] == 0, "nothing was lost"
        trial.judged("synchronous failover", read=_without_the_step, failovers=1)


def _without_the_step(books: Books) -> Books:
    for effect_id, facts in books.journal.items():
        _count_without_the_step(books.effects.get(effect_id), facts)
    return books
