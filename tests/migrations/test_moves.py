"""Migrations go up, down and up again, take turns, give up early on a lock, and end where the tables in code say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy.exc import OperationalError

from migrations.versions import __path__ as versions
from service.core.money import currencies
from service.core.state import FINAL, TRANSITIONS, State
from tests.server import ROOT, Server

OURS = "select relname from pg_class where relnamespace = 'public'::regnamespace and relname !~ '^alembic' order by 1"


@pytest.fixture
def empty(postgres: Server) -> Iterator[str]:
    """A database nobody has migrated yet."""
    with postgres.database() as name:
        yield name


def names(postgres: Server, database: str) -> list[str]:
    with psycopg.connect(postgres.url_of(database)) as connection:
        return [row[0] for row in connection.execute(OURS)]


def constraint(postgres: Server, database: str, name: str) -> str:
    query = "select distinct pg_get_constraintdef(oid) from pg_constraint where conname = %s"  # each month has its own
    with psycopg.connect(postgres.url_of(database)) as connection:
        [(text,)] = connection.execute(query, (name,)).fetchall()
    return str(text)


def quoted(text: str) -> set[str]:
    return set(re.findall(r"'([^']*)'::text", text))


def test_up_down_and_up_again_leaves_nothing_behind_and_misses_nothing(postgres, empty):
    postgres.migrate(empty)
    made = names(postgres, empty)
    assert {"effects", "outbox", "journal", "charges", "emails"} <= set(made)
    postgres.migrate(empty, revision="base")
    assert names(postgres, empty) == []
    with psycopg.connect(postgres.url_of(empty)) as connection:
        assert connection.execute("select count(*) from pg_proc where proname ~ '^counterfoil'").fetchone() == (0,)
    postgres.migrate(empty)
    assert names(postgres, empty) == made


def test_migrating_what_is_migrated_does_nothing(postgres, empty):
    postgres.migrate(empty)
    postgres.migrate(empty)


def test_the_tables_in_code_are_those_in_the_database(postgres, empty):
    postgres.migrate(empty)
    command.check(postgres.alembic(empty))


def test_two_upgrades_at_once_take_turns(postgres, empty):
    url = postgres.url_of(empty)
    upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            upgrade, cwd=ROOT, env=environment(url), capture_output=True, text=True, check=False, timeout=120
        )

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(run, range(2)))
    assert [process.returncode for process in done] == [0, 0], [process.stderr[-500:] for process in done]
    assert "effects" in names(postgres, empty)


def environment(url: str) -> dict[str, str]:
    import os

    return {**os.environ, "COUNTERFOIL_DATABASE_URL": url}


def test_a_migration_that_cannot_get_its_lock_gives_up_and_changes_nothing(postgres, empty):
    postgres.migrate(empty)
    with psycopg.connect(postgres.url_of(empty)) as writer:
        writer.execute("lock table effects in access exclusive mode")
        with pytest.raises(OperationalError, match="lock timeout"):
            postgres.migrate(empty, revision="base")
    assert "effects" in names(postgres, empty)


def test_the_timeouts_are_in_effect_inside_a_migration(postgres, empty, tmp_path):
    revision = tmp_path / "versions"
    revision.mkdir()
    (revision / "9999_probe.py").write_text(
        "from alembic import op\n"
        "revision, down_revision, branch_labels, depends_on = '9999', None, None, None\n"
        "def upgrade():\n"
        "    op.execute(\"create table probe as select current_setting('lock_timeout') as l,"
        " current_setting('statement_timeout') as s\")\n"
        "def downgrade(): pass\n"
    )
    config = postgres.alembic(empty)
    config.set_main_option("version_locations", str(revision))
    command.upgrade(config, "head")
    with psycopg.connect(postgres.url_of(empty)) as connection:
        assert connection.execute("select l, s from probe").fetchone() == ("3s", "1min")


def test_squawk_finds_nothing_dangerous(postgres, empty, tmp_path):
    url = postgres.url_of(empty)
    offline = [sys.executable, "-m", "alembic", "upgrade", "head", "--sql"]
    sql = subprocess.run(offline, cwd=ROOT, env=environment(url), capture_output=True, text=True, check=True).stdout
    assert "create table effects" in sql
    assert sql.index("lock_timeout") < sql.index("create table effects")
    script = tmp_path / "upgrade.sql"
    script.write_text(sql)
    squawk = Path(sys.executable).with_name("squawk")
    checked = subprocess.run([squawk, script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_revision_opens_with_what_it_does_and_can_go_back():
    files = [path for folder in versions for path in Path(folder).glob("[0-9]*.py")]
    assert files
    for path in files:
        text = path.read_text()
        assert text.startswith('"""'), path
        assert "def downgrade()" in text, path


# --- the database says what the core says ----------------------------------------------------------------------------


def test_the_states_of_the_check_are_those_of_the_core(postgres, template, database):  # noqa: ARG001
    assert quoted(constraint(postgres, database.rpartition("/")[2], "effects_state")) == {s.value for s in State}


def test_the_settled_states_of_the_check_are_the_final_ones(postgres, database):
    assert quoted(constraint(postgres, database.rpartition("/")[2], "effects_settled")) == {s.value for s in FINAL}


def test_the_currencies_of_the_check_are_those_of_the_core(postgres, database):
    assert quoted(constraint(postgres, database.rpartition("/")[2], "effects_currency")) == currencies()


def test_the_transitions_of_the_trigger_are_those_of_the_core(database):
    with psycopg.connect(database) as connection:
        query = "select pg_get_triggerdef(oid) from pg_trigger where tgname = 'effects_transition'"
        [(text,)] = connection.execute(query).fetchall()
    written = {pair for pair in quoted(text) if re.fullmatch(r"[a-z]+>[a-z]+", pair)}
    assert written == {f"{a}>{b}" for a, targets in TRANSITIONS.items() for b in targets}


def test_every_fact_that_the_code_writes_is_one_the_journal_takes(postgres, database):
    taken = quoted(constraint(postgres, database.rpartition("/")[2], "journal_fact"))
    sources = [*(ROOT / "service/store").glob("*.py"), *(ROOT / "service/engine").glob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    inserts = re.findall(r"insert into journal[^)]*\)\s*(.*?)(?:\n\)|\"\"\")", text, re.DOTALL)
    written = set(re.findall(r"fact=\"(\w+)\"", text))
    for insert in inserts:
        written |= set(re.findall(r"select (?:cast\()?\w+, '(\w+)'", insert))
        written |= set(re.findall(r"then '(\w+)' else", insert))
    assert {"accepted", "claimed", "leased_out", "parked", "replayed", "late_answer", "succeeded"} <= written
    assert written <= taken
