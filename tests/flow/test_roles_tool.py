"""Every command of the tool, on every login: which it needs, that it works with that one alone, and who is refused.

Written out, so that a grant too many and one too few are both a line that differs; a new command must take its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
import pytest
import typer

from service.cli.app import app
from tests.contract.fake_servers import FakeServer
from tests.flow.doors import CHARGE, park, settle
from tests.flow.logins import Logins, made, shell
from tests.server import Server

_REQUEST = json.dumps(CHARGE)
_LONG_AGO = {
    "effects": "settled_at = settled_at - interval '1 year' where settled_at > now() - interval '1 month'",
    "operations": "finished_at = finished_at - interval '1 year', planned_at = planned_at - interval '1 year'"
    " where finished_at > now() - interval '1 month'",
}
_keys = count(1)

# Command, who may, and who is not refused and sees nothing: (a)pi, (r)elay, (w)orker, (o)perator. What is in braces is
# an effect, a break, an operation, … that is fit for it, new for each login.
COMMANDS: list[tuple[str, str, str]] = [
    ("audit --lag 0 --since 1h", "wo", ""),
    ("audit breaks assign {break} --to ada", "wo", ""),
    ("audit breaks list", "wo", ""),
    ("audit breaks note {break} asked", "wo", ""),
    ("audit breaks close {break} --reason paid", "wo", ""),
    ("charge --amount 4200 --currency eur --payment-method pm_card_visa --key {new}", "wo", ""),
    ("capture --charge {settled} --amount 4200 --currency eur --key {new}", "wo", "a"),
    ("refund --charge {settled} --amount 1 --currency eur --key {new}", "wo", "a"),
    ("cancel --charge {settled} --key {new}", "wo", "a"),
    ("email --to ada@example.test --subject s --text t --key {new}", "wo", ""),
    ("db check", "arwo", ""),
    ("db prune", "wo", ""),
    ("db prune --execute --pace 0", "wo", ""),
    ("doctor", "arwo", ""),
    ("effects erase --id {settled}", "wo", "a"),
    ("effects erase --id {settled} --execute --reason asked", "wo", "a"),
    ("effects list", "wo", "a"),
    ("effects show {settled}", "wo", "a"),
    ("effects resolve {parked} --as failed --reason gone --evidence none --yes", "wo", "a"),
    ("effects verify {settled}", "wo", "a"),
    ("keys create --name n --scope effects:read", "o", ""),
    ("keys list", "oa", ""),
    ("keys rotate {key}", "o", ""),
    ("keys revoke {key}", "o", ""),
    ("lanes list", "arwo", ""),
    ("lanes pause email --reason r", "o", ""),
    ("lanes resume {lane} --reason r", "o", ""),
    ("ops list", "rwo", "a"),
    ("ops show {plan}", "rwo", "a"),
    ("ops watch {cancelled}", "rwo", "a"),
    ("ops pause {running}", "ro", "a"),
    ("ops resume {paused}", "ro", "a"),
    ("ops cancel {plan}", "ro", "a"),
    ("outbox list", "rwo", "a"),
    ("outbox show {parked}", "rwo", "a"),
    ("outbox groups", "o", "a"),
    ("outbox note {group} seen", "o", "a"),
    ("outbox stats", "oa", ""),
    ("outbox apply {plan} --reason r --yes", "ro", "a"),
    ("outbox park --id {pending} --execute --reason r --yes", "o", ""),
    ("outbox replay --id {parked}", "o", ""),
    ("outbox replay --id {parked} --execute --reason r --yes", "o", ""),
    ("outbox unpark --id {held} --execute --reason r --yes", "o", ""),
    ("recover --since 2026-01-01 --execute --reason r", "o", ""),
    ("top --once", "oa", ""),
]
# They run as the programs do (test_roles.py), ask no database, or are for who owns the tables.
OTHERS = {"api", "relay", "worker", "beat", "up", "demo", "chaos", "config show", "db upgrade", "db roles"}
# In every run, beside what test_roles.py does with these logins; the whole table is slow.
SHORT = {
    "operator": ("db prune --execute", "effects erase --id {settled} --execute", "ops cancel", "recover"),
    "worker": ("db prune --execute", "recover"),
}


@dataclass
class Ground:
    """A database with something for each command, and the command on a login."""

    logins: Logins
    settings: Mapping[str, str]

    def run(self, role: str, words: str) -> tuple[int, str, str]:
        done = shell().run(
            *(self._filled(word) for word in words.split()), "--json",
            settings={**self.settings, "database_url": self.logins.urls[role]},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def long_ago(self) -> None:
        """A finished operation and a settled charge of last year, so that there is something to let go."""
        self._settled()
        self._cancelled()
        with psycopg.connect(self.logins.owner, autocommit=True) as db:
            for table, what in _LONG_AGO.items():
                db.execute(f"alter table {table} disable trigger user")
                db.execute(f"update {table} set {what}")
                db.execute(f"alter table {table} enable trigger user")

    def _said(self, words: str) -> Any:
        code, said, error = self.run("operator", words)
        assert code in (0, 1), (words, code, error)
        return json.loads(said.splitlines()[0])

    def _filled(self, word: str) -> str:
        return str(getattr(self, f"_{word[1:-1]}")()) if word.startswith("{") else word

    def _new(self) -> str:
        return f"tool:{next(_keys)}"

    def _pending(self) -> str:
        made = f"01890000-0000-7000-8000-{next(_keys):012d}"
        with psycopg.connect(self.logins.owner) as db:
            db.execute(
                "insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, policy, amount, currency)"
                " values (%s, 'default', 'charge', %s, %s, %s, 'pending', 'at_most_once', 4200, 'eur')",
                (made, made, "a" * 64, _REQUEST),
            )
            db.execute(
                "insert into outbox (effect_id, kind, lane, road) values (%s, 'charge', 'charge', 'fresh')", (made,)
            )
            db.execute("insert into journal (effect_id, fact, attempt, actor) values (%s, 'accepted', 0, 't')", (made,))
        return made

    def _settled(self) -> str:
        settle(self.logins.owner, made := self._pending())
        return made

    def _parked(self) -> str:
        park(self.logins.owner, made := self._pending())
        return made

    def _held(self) -> str:
        made = self._parked()
        with psycopg.connect(self.logins.owner) as db:
            db.execute("update outbox set parked_reason = 'by_person' where effect_id = %s", (made,))
        return made

    def _break(self) -> str:
        self._settled()  # nothing of it is at the provider
        self.run("operator", "audit --lag 0 --since 1h")
        return str(self._said("audit breaks list --limit 1")["id"])

    def _group(self) -> str:
        self._parked()
        return str(self._said("outbox groups")["id"])

    def _key(self) -> str:
        return str(self._said("keys create --name n --scope effects:read")["id"])

    def _lane(self) -> str:
        self.run("operator", "lanes pause email --reason r")
        return "email"

    def _plan(self) -> str:
        return str(self._said("outbox replay --id {parked}")["plan"])

    def _turned(self, words: str, plan: str) -> str:
        code, said, error = self.run("operator", words.replace("ID", plan))
        assert code in {0, 4}, (words, said, error)  # 4: no relay runs that would carry it out
        return plan

    def _running(self) -> str:
        return self._turned("outbox apply ID --reason r --yes", self._plan())

    def _paused(self) -> str:
        return self._turned("ops pause ID", self._running())

    def _cancelled(self) -> str:
        return self._turned("ops cancel ID", self._plan())


@pytest.fixture(scope="module")
def ground(
    postgres: Server, template: str, stripe_fake: FakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    settings = {
        "stripe_api_key": "sk_test_tool", "stripe_api_base": stripe_fake.address["url"], "lease": "2",
        "provider_deadline": "0.2", "redelivery": "3", "broker_url": "redis://127.0.0.1:1/0",
        "state_dir": str(tmp_path_factory.mktemp("tool")), "payload_days": "2",
    }  # fmt: skip
    with postgres.database(template=template) as name:
        for logins in made(postgres, postgres.url_of(name)):
            yield Ground(logins, settings)


def commands(group: Any, *before: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if getattr(command, "commands", None) and not command.invoke_without_command:
            yield from commands(command, *before, name)
        else:
            yield " ".join((*before, name))
            if hasattr(command, "commands"):
                yield from commands(command, *before, name)


def answered(ground: Ground, role: str, words: str) -> str:
    """`may`, `refused`, `sees nothing`, or what else it said."""
    code, said, error = ground.run(role, words)
    if "may not do this" in error:
        return "refused" if code == 7 else f"refused with {code}"
    if code in (0, 1, 4) and "Traceback" not in error:
        return "may"
    return (
        "sees nothing"
        if code == 3 or "there is no charge" in error or "no group" in error
        else f"{code}: {said} {error}"
    )


def expected(role: str, may: str, blind: str) -> str:
    return "may" if role[0] in may else "sees nothing" if role[0] in blind else "refused"


def judged(ground: Ground, role: str, rows: list[tuple[str, str, str]]) -> None:
    ground.long_ago()
    wanted = {words: expected(role, may, blind) for words, may, blind in rows}
    found = {words: answered(ground, role, words) for words in wanted}
    wrong = [f"{words}: {said}, not {wanted[words]}" for words, said in found.items() if said != wanted[words]]
    assert not wrong, "\n".join([role, *wrong])
    # Nor did one that was refused half-way stop the service.
    with psycopg.connect(ground.logins.owner) as db:
        assert db.execute("select count(*) from incarnations where released_at is null").fetchone() == (0,)


def test_every_command_has_its_line() -> None:
    lines = {words for words, _, _ in COMMANDS}
    for name in set(commands(typer.main.get_command(app))) - OTHERS:
        assert any(line == name or line.startswith(f"{name} ") for line in lines), name


@pytest.mark.parametrize("role", SHORT)
def test_what_writes_much_works_with_its_own_login_and_is_refused_to_others(ground: Ground, role: str) -> None:
    judged(ground, role, [row for row in COMMANDS if row[0].startswith(SHORT[role])])


@pytest.mark.slow
@pytest.mark.parametrize("role", ["operator", "worker", "relay", "api"])
def test_every_command_on_a_login(ground: Ground, role: str) -> None:
    judged(ground, role, COMMANDS)
