"""Least privilege: which program may do what to which table, said once, and the SQL that makes it so.

api       accepts and shows, for one tenant at a time (row-level security); it changes and deletes no effect
relay     moves the outbox and drives operations; it sees no request, and so no address and no payload
worker    claims, sends, settles and runs the periodic tasks; it deletes no effect and no fact
operator  is a person with the tool: reads everything, decides, makes keys; rewrites nothing that is frozen
caller    is no login but a right: granted to the login of code that accepts in its own transactions

A table that is not listed fails a test, so whoever adds one decides who may touch it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from service.store import actions, pooler
from service.store.tenancy import SETTING

LOGINS = ("api", "relay", "worker", "operator")
CALLER = "caller"
ROLES = (*LOGINS, CALLER)

# What accept writes; the rest of a new effect has its default.
_ACCEPTED = (
    "id, tenant, kind, dedupe_key, fingerprint, request, state, policy, not_before, amount, currency, caused_by,"
    " concerns, ready_when, context"
)
_ACCEPT = f"select, insert ({_ACCEPTED})"
_DUTY = "select, insert (effect_id, kind, lane, priority, road, available_at)"
_FACT = "insert (effect_id, fact, attempt, actor, evidence)"
# An attempt's columns: neither what was accepted nor when.
_LED = (
    "state, attempt, lease_until, not_before, first_sent_at, in_doubt, budget_from, patience_from, progress, provider,"
    " provider_ref, outcome, settled_at, ready_when"
)
_MOVED = "lane, priority, road, available_at, deliveries, parked_at, parked_reason, last_error"
_SEEN_BY_RELAY = (
    "id, tenant, kind, dedupe_key, state, attempt, lease_until, not_before, first_sent_at, in_doubt, budget_from,"
    " patience_from, policy, provider, provider_ref, amount, currency, caused_by, concerns, ready_when, created_at,"
    " settled_at"
)
_BY_RELAY = "state, lease_until, not_before, in_doubt, budget_from, patience_from"

_STARTED = (
    "state, reason, started_by, started_at, per_second, canary, failures_max, batch, paced_at, paced_from, paused_at,"
    " finished_at, stop_reason"
)

GRANTS: Mapping[str, Mapping[str, str]] = {
    "effects": {
        "api": _ACCEPT,
        "caller": _ACCEPT,
        "relay": f"select ({_SEEN_BY_RELAY}), update ({_BY_RELAY})",
        "worker": f"{_ACCEPT}, update ({_LED}, request, context)",
        "operator": f"{_ACCEPT}, update ({_LED}, request, context)",
    },
    "outbox": {
        "api": _DUTY,
        "caller": _DUTY,
        "relay": f"select, update ({_MOVED})",
        "worker": f"{_DUTY}, update ({_MOVED}), delete",
        "operator": f"{_DUTY}, update ({_MOVED}), delete",
    },
    "journal": {
        "api": f"select, {_FACT}",
        "caller": f"select, {_FACT}",
        "relay": f"select (effect_id, id, at, fact, attempt, actor), {_FACT}",
        "worker": f"select, {_FACT}",
        "operator": f"select, {_FACT}",
    },
    # Events come in by counterfoil_receive.
    "inbox": {"worker": "select, update, delete", "operator": "select, update, delete"},
    "audits": {"worker": "select, insert, update", "operator": "select, insert, update"},
    "breaks": {"worker": "select, insert, update", "operator": "select, insert, update"},
    "incarnations": {
        "api": "select",
        "relay": "select, insert",
        "worker": "select, insert",
        "operator": "select, insert, update",
    },
    "orphans": {"worker": "select, insert, update", "operator": "select, insert, update"},
    "operations": {
        "api": f"select, insert, update ({_STARTED})",
        "relay": "select, update",
        "worker": "select, delete",
        "operator": "select, insert, update, delete",
    },
    "operation_items": {
        "api": "select, insert",
        "relay": "select, update (result, why, done_at, ended)",
        "worker": "select, delete",
        "operator": "select, insert, update, delete",
    },
    "group_notes": {"api": "select, insert", "operator": "select, insert"},
    "lanes": {"api": "select", "relay": "select", "worker": "select", "operator": "select, insert, update"},
    # A purge asks whether an operation was summed up before.
    "actions": {
        "api": "insert",
        "relay": "insert",
        "worker": "select (subject, verb), insert",
        "operator": "select, insert",
    },
    "api_keys": {"api": "select, update (tokens, filled_at, used_at)", "operator": "select, insert, update"},
    "purges": {"worker": "select, insert, update", "operator": "select, insert, update"},
    "kept_requests": {"worker": "select, insert, update, delete", "operator": "select, insert, update, delete"},
    "buckets": {"relay": "select", "worker": "select, insert, update, delete", "operator": "select, update, delete"},
    "circuits": {
        "api": "select",
        "relay": "select",
        "worker": "select, insert, update",
        "operator": "select, update",
    },
    "alembic_version": {"api": "select", "relay": "select", "worker": "select", "operator": "select"},
    "charges": {"operator": "select"},
    "emails": {"operator": "select"},
    "refunds": {"operator": "select"},
}
"""Table or view, role, privileges. What is not here is not granted."""

SEQUENCES: Mapping[str, tuple[str, ...]] = {"journal_id_seq": ROLES}
FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "counterfoil_receive": ("api", "worker", "operator"),
    "counterfoil_journal_months": ("worker", "operator"),
    "counterfoil_journal_drop": ("worker", "operator"),
}

_OF_TENANT = f"tenant = current_setting('{SETTING}', true)"
_OF_EFFECT = "exists (select from effects e where e.id = {table}.effect_id)"
_OF_OPERATION = "exists (select from operations o where o.id = {table}.operation_id)"

POLICIES: Mapping[str, tuple[str, str]] = {
    "effects": (_OF_TENANT, _OF_TENANT),
    # Written in one statement with their effect, which that statement does not see yet: the outbox's foreign key holds
    # the first, and nothing but an acceptance can be written into the second.
    "outbox": (_OF_EFFECT, "deliveries = 0 and road in ('fresh', 'later')"),
    "journal": (_OF_EFFECT, "fact = 'accepted' and attempt = 0"),
    "operations": (_OF_TENANT, _OF_TENANT),
    "group_notes": (_OF_TENANT, _OF_TENANT),
    # The same: items come in one statement with their operation, and each is of an effect that is seen.
    "operation_items": (_OF_OPERATION, "exists (select from effects e where e.id = {table}.effect_id)"),
}
"""For the API's login alone: which rows it sees, and which it may write."""

_MAY = text("select rolsuper or rolcreaterole from pg_roles where rolname = current_user")
_ROLE = text("select 1 from pg_roles where rolname = :name")
# Whose the tables are: a superuser that makes the roles is not who makes the tables of later versions.
_NAMES = text("""
select current_database(), current_schema(), coalesce(
    (select tableowner from pg_tables where schemaname = current_schema() and tablename = 'effects'), current_user)
""")


@dataclass(frozen=True, slots=True)
class Step:
    """One statement; `shown` is how it may be printed."""

    sql: str
    shown: str


def may_create(connection: Connection) -> bool:
    """Whether this login may make roles."""
    return bool(connection.execute(_MAY).scalar_one())


def exists(connection: Connection, name: str) -> bool:
    """Whether there is such a role."""
    return connection.execute(_ROLE, {"name": name}).scalar() is not None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tables are, and whose."""

    database: str
    schema: str
    owner: str


def steps(prefix: str, passwords: Mapping[str, str], place: Place) -> Iterator[Step]:
    """All that makes it so, in order. Whoever has a password here gets it; everything may be said again at any time.

    Raises nothing; names must have been checked.
    """
    for role in ROLES:
        yield from _role(f"{prefix}_{role}", passwords.get(role), login=role != CALLER)
    everybody = ", ".join(f"{prefix}_{role}" for role in ROLES)
    database, schema = place.database, place.schema
    yield _step(f'grant connect on database "{database}" to {everybody}')
    # Audits compare both books in tables of their session.
    yield _step(f'grant temporary on database "{database}" to {prefix}_worker, {prefix}_operator')
    yield _step(f'grant usage on schema "{schema}" to {everybody}')
    # Anew: what an earlier version granted and this one does not is gone.
    yield _step(f'revoke all on all tables in schema "{schema}" from {everybody}')
    for table, rights in GRANTS.items():
        for role, what in rights.items():
            yield _step(f"grant {what} on {table} to {prefix}_{role}")
    for name, roles in SEQUENCES.items():
        yield _step(f"grant usage, select on sequence {name} to {_named(prefix, roles)}")
    for name, roles in FUNCTIONS.items():
        yield _step(f"grant execute on function {name} to {_named(prefix, roles)}")
    # Of tables of later versions the operator sees everything; the programs get theirs when this is said again.
    later = f'alter default privileges for role "{place.owner}" in schema "{schema}"'
    yield _step(f"{later} grant select on tables to {prefix}_operator")
    yield from _policies(prefix)


def _role(name: str, password: str | None, *, login: bool) -> Iterator[Step]:
    sort = "login" if login else "nologin"
    yield _step(
        f"do $$ begin if not exists (select from pg_roles where rolname = '{name}') then"
        f" create role {name} {sort}; end if; end $$"
    )
    if password is not None:
        yield Step(f"alter role {name} password '{password}'", f"alter role {name} password '***'")


def _policies(prefix: str) -> Iterator[Step]:
    for table, (seen, written) in POLICIES.items():
        yield _step(f"alter table {table} enable row level security")
        # Everybody as before, and of these the API's login with a restriction: other logins are not concerned.
        yield _step(f"drop policy if exists everybody on {table}")
        yield _step(f"create policy everybody on {table} using (true) with check (true)")
        role = f"{prefix}_api"
        for verb, clause in (
            ("select", f"using ({seen})"),
            ("insert", f"with check ({written})"),
            ("update", f"using ({seen}) with check ({seen})"),
            ("delete", "using (false)"),
        ):
            name = f"{role}_{verb}"
            yield _step(f"drop policy if exists {name} on {table}")
            filled = clause.replace("{table}", table)
            yield _step(f"create policy {name} on {table} as restrictive for {verb} to {role} {filled}")


def _named(prefix: str, roles: tuple[str, ...]) -> str:
    return ", ".join(f"{prefix}_{role}" for role in roles)


def _step(sql: str) -> Step:
    return Step(sql, sql)


def place(connection: Connection) -> Place:
    """The database and the schema that the connection is in, and who owns the tables there."""
    row = connection.execute(_NAMES).one()
    return Place(str(row[0]), str(row[1]), str(row[2]))


def make(connection: Connection, prefix: str, passwords: Mapping[str, str], where: Place, *, actor: str) -> None:
    """Carry it all out, in the caller's transaction, and note it in the operators' log."""
    raw = pooler.driver_connection(connection)
    # As the server keeps it (SCRAM, RFC 5803): a password in clear would stand in its log and its statistics.
    kept = {
        role: raw.pgconn.encrypt_password(word.encode(), f"{prefix}_{role}".encode(), b"scram-sha-256").decode()
        for role, word in passwords.items()
    }
    for step in steps(prefix, kept, where):
        connection.exec_driver_sql(step.sql.replace("%", "%%"))
    detail = {"prefix": prefix, "new_passwords": sorted(passwords)}
    actions.write(connection, actor=actor, door="cli", verb="db roles", subject=f"{prefix}_*", detail=detail)
