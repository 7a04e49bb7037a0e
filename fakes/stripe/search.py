"""Search over PaymentIntents, as far behind the objects as it is told to be.

Stripe docs, "Search": not for read-after-write; under a minute behind normally, up to an hour during outages. So the
index keeps every version of what can be searched, and a query sees the newest one that is old enough: an object that
has just appeared is not found, and one that has just changed is found by what it was.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fakes.stripe import objects
from fakes.stripe.objects import Json

SCHEMA = """
CREATE TABLE IF NOT EXISTS search_versions (
    payment_intent TEXT NOT NULL, at REAL NOT NULL, document TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS search_by_intent ON search_versions (payment_intent, at);
CREATE TABLE IF NOT EXISTS search_terms (
    name TEXT NOT NULL, value TEXT NOT NULL, payment_intent TEXT NOT NULL, PRIMARY KEY (name, value, payment_intent)
) WITHOUT ROWID;
"""

_SEARCHED = ("amount", "created", "currency", "customer", "metadata", "status")
_CLAUSE = re.compile(
    r"""\s*(?P<negated>-)?(?:metadata\[(?P<q>['"])(?P<key>.+?)(?P=q)\]|(?P<field>\w+))\s*(?P<operator>:|~|>=|<=|>|<)\s*"""
    r"""(?:(?P<q2>['"])(?P<text>.*?)(?P=q2)|(?P<number>-?\d+)|(?P<null>null))\s*"""
)
_JOINT = re.compile(r"(and|or)\s+", re.IGNORECASE)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ":": lambda have, want: have == want,
    "~": lambda have, want: want in str(have),
    ">": lambda have, want: have > want,
    ">=": lambda have, want: have >= want,
    "<": lambda have, want: have < want,
    "<=": lambda have, want: have <= want,
}
NUMBERS = ("amount", "created")
CLAUSES_MAX = 10  # Stripe docs, "Search query language"


class BadQuery(ValueError):
    """A query that the language does not know; the message says where."""


def note(connection: sqlite3.Connection, intents: Iterable[Mapping[str, Any]], at: float | None = None) -> None:
    """Put versions of PaymentIntents into the index; without a time, as old as the objects themselves."""
    things = list(intents)
    connection.executemany(
        "INSERT INTO search_versions VALUES (?, ?, ?)",
        (
            (thing["id"], thing["created"] if at is None else at, json.dumps({name: thing[name] for name in _SEARCHED}))
            for thing in things
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO search_terms VALUES (?, ?, ?)",
        ((name, value, thing["id"]) for thing in things for name, value in thing["metadata"].items()),
    )


def search(
    connection: sqlite3.Connection, query: str, seen_until: float, limit: int, page: str | None
) -> tuple[list[Json], str | None]:
    """The PaymentIntents that met the query at `seen_until`, newest first, and the next page. Raises BadQuery."""
    clauses, meets_all = _parse(query)
    offset = _offset(page, query)
    found = []
    for intent_id in _candidates(connection, clauses, meets_all):
        document = _version(connection, intent_id, seen_until)
        if document is not None and (all if meets_all else any)(_meets(clause, document) for clause in clauses):
            found.append((document["created"], intent_id))
    found.sort(reverse=True)
    shown = [objects.load(connection, "payment_intent", each) for _, each in found[offset : offset + limit]]
    more = len(found) > offset + limit
    return [each for each in shown if each], _page(query, offset + limit) if more else None


def _parse(query: str) -> tuple[list[re.Match[str]], bool]:
    """The clauses, and whether all must be met (AND) or any (OR); a query cannot mix them."""
    clauses, joints, place = [], set(), 0
    while True:
        clause = _CLAUSE.match(query, place)
        if clause is None:
            raise BadQuery(f"We were unable to parse your search query at {query[place : place + 30]!r}.")
        clauses.append(clause)
        _check(clause)
        place = clause.end()
        if place == len(query):
            break
        joint = _JOINT.match(query, place)
        joints.add(joint[1].lower() if joint else "and")
        place = joint.end() if joint else place
    if len(joints) > 1:
        raise BadQuery("A search query cannot mix AND and OR.")
    if len(clauses) > CLAUSES_MAX:
        raise BadQuery(f"A search query can have at most {CLAUSES_MAX} clauses.")
    return clauses, "or" not in joints


def _check(clause: re.Match[str]) -> None:
    field, operator = clause["field"], clause["operator"]
    if field is not None and (field not in _SEARCHED or field == "metadata"):
        raise BadQuery(f"Field `{field}` is an unsupported search field for resource `payment_intents`.")
    if operator in (">", ">=", "<", "<=") and field not in NUMBERS:
        raise BadQuery(f"Operator `{operator}` is for numbers only.")


def _candidates(connection: sqlite3.Connection, clauses: list[re.Match[str]], meets_all: bool) -> list[str]:
    """Those a metadata clause leads to; without one, all."""
    for clause in clauses if meets_all else ():
        if clause["key"] and clause["text"] is not None and clause["operator"] == ":" and not clause["negated"]:
            rows = connection.execute(
                "SELECT payment_intent FROM search_terms WHERE name = ? AND value = ?", (clause["key"], clause["text"])
            )
            return [row["payment_intent"] for row in rows]
    return [row["id"] for row in connection.execute("SELECT id FROM objects WHERE object = 'payment_intent'")]


def _version(connection: sqlite3.Connection, intent_id: str, seen_until: float) -> Json | None:
    row = connection.execute(
        "SELECT document FROM search_versions WHERE payment_intent = ? AND at <= ?"
        " ORDER BY at DESC, rowid DESC LIMIT 1",
        (intent_id, seen_until),
    ).fetchone()
    return json.loads(row["document"]) if row else None


def _meets(clause: re.Match[str], document: Json) -> bool:
    have = document["metadata"].get(clause["key"]) if clause["key"] else document[clause["field"]]
    want: object = clause["text"] if clause["text"] is not None else clause["number"]
    if clause["field"] in NUMBERS and want is not None:
        want = int(str(want))
    met = have is not None and _COMPARE[clause["operator"]](have, want) if want is not None else have is None
    return met is not bool(clause["negated"])


def _page(query: str, offset: int) -> str:
    """An opaque cursor, good for this query only."""
    return base64.urlsafe_b64encode(json.dumps([offset, query]).encode()).decode()


def _offset(page: str | None, query: str) -> int:
    if page is None:
        return 0
    try:
        offset, its_query = json.loads(base64.urlsafe_b64decode(page))
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadQuery("Invalid page.") from error
    if its_query != query:
        raise BadQuery("This page belongs to another query.")
    return int(offset)
