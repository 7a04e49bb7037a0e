"""Failure groups: what fails in the same way is one line, and what is particular to one effect is not in it."""

from __future__ import annotations

from hashlib import sha256

import pytest

from service.core.errors import ValidationError
from service.core.operation import Selection, Verb
from service.core.state import State
from service.engine import groups, operations
from tests.store.answers import parked, waiting
from tests.store.books import Books, order, orders

ME = {"actor": "me@host", "door": "cli"}
SAME = [
    "pi_3Abc of ada@example.test: timed out after 30 s",
    "pi_9Xyz of bob@example.org: timed out after 7 s",
    "pi_0 of c.d+e@example.co.uk: timed out after 12000 s",
]


def failing(books: Books, *errors: str) -> list[str]:
    ids = books.accept(*orders(len(errors)))
    for attempt, error in zip(sorted(books.claim(*ids), key=lambda one: ids.index(one.id)), errors, strict=True):
        books.settle(waiting(attempt, State.UNKNOWN, "unknown", error=error))
    return ids


def test_ids_numbers_and_addresses_make_no_group_of_their_own(books):
    ids = failing(books, *SAME, "certificate expired")
    large, small = groups.listed()
    assert (large.count, large.state, large.kind, large.money) == (3, "unknown", "charge", {"eur": 3 * 4200})
    assert large.error == "<ref> of <address>: timed out after <n> s"
    assert (list(large.sample), small.count) == (ids[:3], 1)
    assert large.first_seen <= large.last_seen


def test_what_is_well_is_in_no_group(books):
    books.accept(order())
    assert groups.listed() == []


def test_a_group_keeps_its_name_and_can_be_selected(books):
    ids = failing(books, *SAME)
    [group] = groups.listed()
    assert len(group.id) == 12
    assert operations.plan(Verb.REPLAY, Selection(group=group.id), actor="me").ids == tuple(ids)
    assert [found.id for found in groups.listed(group=group.id)] == [group.id]


def test_parked_effects_are_grouped_by_what_they_were_parked_for(books):
    ids = books.accept(*orders(2))
    one, two = books.claim(*ids)
    books.settle(parked(one, "echo_mismatch"), parked(two, "attempt_budget"))
    assert {group.reason for group in groups.listed()} == {"echo_mismatch", "attempt_budget"}


def test_a_note_stays_with_the_group_and_stands_in_the_operators_log(books):
    failing(books, SAME[0])
    [group] = groups.listed()
    groups.note(group.id, " INC-42: the bank is away ", **ME)
    [note] = groups.listed()[0].notes
    assert (note["note"], note["author"]) == ("INC-42: the bank is away", "me@host")
    assert books.one("select subject from actions") == f"group {group.id}"


@pytest.mark.parametrize(("said", "match"), [("", "characters"), (" ", "characters"), ("x" * 2001, "characters")])
def test_an_empty_or_endless_note_is_refused(books, said, match):
    failing(books, SAME[0])
    with pytest.raises(ValidationError, match=match):
        groups.note(groups.listed()[0].id, said, **ME)


@pytest.mark.usefixtures("books")
def test_a_note_belongs_to_a_group_that_is_there():
    with pytest.raises(ValidationError, match="no group"):
        groups.note("000000000000", "hello", **ME)


def test_a_tenant_reads_its_own_notes_and_an_operator_all_of_them(books):
    [one] = books.accept(order())
    [attempt] = books.claim(one)
    books.settle(parked(attempt))
    [group] = groups.listed()
    groups.note(group.id, "for operators", actor="ada@host", door="cli")
    groups.note(group.id, "for the tenant", actor="key:1", door="api", tenant="default")
    assert [note["note"] for note in groups.listed(tenant="default")[0].notes] == ["for the tenant"]
    assert [note["note"] for note in groups.listed()[0].notes] == ["for operators", "for the tenant"]
    with pytest.raises(ValidationError, match="no group"):
        groups.note(group.id, "probe", actor="key:2", door="api", tenant="another")


def test_the_providers_code_tells_groups_apart_and_is_shown(books):
    failing(books, "access_refused (api_key_expired)", "access_refused (account_invalid)", "status_500", "status_503",
            "bug (KeyError)", "the broker does not answer (TimeoutError)")  # fmt: skip
    assert {(one.error, one.code, one.error_class) for one in groups.listed()} == {
        ("access_refused", "api_key_expired", "access"),
        ("access_refused", "account_invalid", "access"),
        ("status_<n>", "500", "provider"),
        ("status_<n>", "503", "provider"),
        ("bug", "KeyError", "bug"),
        ("the broker does not answer (TimeoutError)", "", "other"),
    }


def test_an_id_of_before_codes_told_groups_apart_still_means_all_of_them_and_keeps_its_notes(books):
    """At first the id was made of kind, state, reason and error alone; such ids stand in notes and in tickets."""
    ids = failing(books, "status_500", "status_503", "no_answer_timeout")
    former = sha256(b"charge|unknown||status_<n>").hexdigest()[:12]
    books.run("insert into group_notes (group_id, note, author) values (%s, 'INC-41', 'ada@host')", former)
    assert operations.plan(Verb.REPLAY, Selection(group=former), actor="me").ids == tuple(ids[:2])
    noted = {one.code: [note["note"] for note in one.notes] for one in groups.listed()}
    assert noted == {"500": ["INC-41"], "503": ["INC-41"], "": []}
    groups.note(former, "still so", **ME)
    assert {len(one.notes) for one in groups.listed(group=former)} == {2}
    [without] = [one for one in groups.listed() if not one.code]
    assert without.id == sha256(b"charge|unknown||no_answer_timeout").hexdigest()[:12], "its id is what it was"
