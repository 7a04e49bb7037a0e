"""Wall clocks are wrong by hours and days, of our processes or of Postgres itself: nothing happens twice, nothing is lost.

Leases, due times and the key's horizon are the database's clock and a monotonic one; nobody asks a wall.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.servers import clocks
from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.chaos.servers.load import BLIND_LANE
from tests.chaos.servers.postgres import UNSYNCED, Foundry
from tests.chaos.servers.trial import Trial
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.slow,
    pytest.mark.skipif(clocks.library() is None, reason=clocks.NO_FAKETIME),
]
SOON_SECONDS = 8
OFFSETS = ("-3h", "+3h", "+40d")


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_relay_and_a_worker_whose_clocks_are_wrong(
    house: House, valkey_wire: ValkeyWire, database: str, offset: str
) -> None:
    """Beside another pair whose clocks are right, with answers lost and a worker killed, so that leases are judged."""
    trial = house(database, valkey_wire)
    system = trial.system
    clocks.start(system, "relay", ["service", "relay"], offset)
    mail = system.mail.address["smtp_url"]
    wrong = [clocks.worker(system, offset), clocks.worker(system, offset, lanes=BLIND_LANE, EMAIL_URL=mail)]
    for program in wrong:
        system.ready(program)
    trial.begin()
    system.stripe.fault("close_after", route="create", times=3)
    system.stripe.fault("close_after", route="confirm", times=3)
    trial.load.reaches(12)
    trial.workers[0].kill()
    trial.load.reaches(24)
    wrong[0].kill()
    system.ready(trial.worker())
    clocks.worker(system, offset)
    trial.judged(f"clocks at {offset}", kills=2, clocks_wrong=1)


def test_a_due_time_given_in_seconds_is_the_databases_business(
    house: House, valkey_wire: ValkeyWire, database: str
) -> None:
    """A caller at minus three hours is not early, one at plus three hours not late."""
    trial = house(database, valkey_wire)
    system = trial.system
    for offset in ("-3h", "+3h"):
        words = ["tests.chaos.servers.late_caller", f"late:{offset}", "30"]
        program = clocks.start(system, "caller-late", words, offset)
        assert program.wait(60) == 0, program.text()
        left = "extract(epoch from not_before - now())::float8"
        [row] = system.sql(f"select {left} as left from effects where dedupe_key = %s", f"late:{offset}")
        assert 0 < row["left"] <= 30


def test_a_postgres_whose_clock_jumps_forward_under_load(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire, tmp_path: Path
) -> None:
    """Every lease is over at once, and past the horizon nothing in doubt is sent again: it is looked for."""
    file = _clock_of(tmp_path)
    with postgres_foundry.server(UNSYNCED, more=clocks.stepped(file)) as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin()
        before = postgres.ask("select extract(epoch from now())::float8")
        trial.system.stripe.fault("close_after", route="confirm", times=2)
        for n, offset in ((10, "+3h"), (20, "+25h"), (30, "+50h")):
            trial.load.reaches(n)
            file.write_text(offset + "\n")
        trial.load.ends()
        _hours_pass(trial, file, range(51, 57))
        assert postgres.ask("select extract(epoch from now())::float8") - before > 49 * 3600
        trial.judged("postgres's clock forward", clock_steps=3)


def test_a_postgres_whose_clock_jumps_back_under_load(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire, tmp_path: Path
) -> None:
    """What was due now is due in three hours: it waits, in sight, and happens once when they are over."""
    file = _clock_of(tmp_path, "+3h")
    with postgres_foundry.server(UNSYNCED, more=clocks.stepped(file)) as postgres:
        trial = house(postgres.url, valkey_wire)
        # A refund's order is judged by the journal's times, which go back here.
        trial.begin(without="refund")
        trial.load.reaches(15)
        file.write_text("+0h\n")
        trial.workers[0].kill()
        trial.system.ready(trial.worker())
        trial.load.ends()
        file.write_text("+3h\n")
        trial.judged("postgres's clock back", kills=1, clock_steps=2)


def _hours_pass(trial: Trial, file: Path, hours: range) -> None:
    """What was looked for and not found is looked for again an hour later: twice is proof (I5). Until nothing is open."""
    for hour in hours:
        with suppress(AssertionError):
            trial.system.until(lambda: not trial.open(), "nothing is open", SOON_SECONDS)
            return
        file.write_text(f"+{hour}h\n")


def _clock_of(folder: Path, offset: str = "+0h") -> Path:
    """A file that whoever Postgres runs as may read."""
    for parent in (folder, *list(folder.parents)[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    file = folder / "clock"
    file.write_text(offset + "\n")
    file.chmod(0o644)
    return file
