"""Wishes of RFC 7240, cursors that cannot be made up, moments that have a zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service import settings
from service.api import cursor, headers
from service.api.moment import Moment
from service.api.problems import Problem

FIRST = datetime(2000, 1, 2)  # noqa: DTZ001 - `timezones` adds it
LAST = datetime(2199, 12, 30)  # noqa: DTZ001 - the same
MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


@pytest.mark.parametrize(
    ("sent", "wait", "at_once"),
    [
        ([], None, False),
        (["wait=5"], 5, False),
        (["WAIT = 5"], 5, False),
        (['wait="5"'], 5, False),
        (["wait=5, wait=9"], 5, False),
        (["wait=5", "wait=9"], 5, False),
        (["wait=99999"], headers.WAIT_SECONDS_MAX, False),
        (["respond-async, wait=3"], 3, True),
        (["Respond-Async"], None, True),
        (["wait=soon, wait=-1, wait=1.5, return=minimal"], None, False),
        (["wait=5; q=1"], 5, False),
    ],
)
def test_a_wish_is_read_as_rfc_7240_says(sent: list[str], wait: int | None, at_once: bool) -> None:
    assert headers.wish(sent) == headers.Wish(wait, at_once)


@pytest.fixture
def _login(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://u:secret@db/counterfoil")
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


@pytest.mark.usefixtures("_login")
def test_only_our_own_cursor_of_this_very_list_is_taken() -> None:
    made = cursor.seal("charge order:1", {"tenant": "a", "kind": "charge"})
    assert cursor.unseal(made, {"kind": "charge", "tenant": "a"}) == "charge order:1"
    for other in ({"tenant": "b", "kind": "charge"}, {"tenant": "a"}, {"tenant": "a", "kind": "charge", "state": "x"}):
        with pytest.raises(Problem):
            cursor.unseal(made, other)
    assert "order" not in made


@pytest.mark.usefixtures("_login")
@given(st.text(max_size=60))
def test_no_text_is_a_cursor(text: str) -> None:
    with pytest.raises(Problem):
        cursor.unseal(text, {"tenant": "a"})


@given(st.datetimes(FIRST, LAST, timezones=st.timezones()))
def test_every_moment_with_a_zone_is_read(moment: datetime) -> None:
    if moment.utcoffset().seconds % 60:  # RFC 3339 knows no seconds of an offset; local mean times had them
        moment = moment.astimezone(UTC)
    # By the clock: Python calls moments unequal when one of them has a twin in its zone (PEP 495).
    assert MOMENT.validate_python(moment.isoformat()).timestamp() == moment.timestamp()


@pytest.mark.parametrize(
    "text", ["2026-12-01", "2026-12-01T00:00:00", "1999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", 5, True]
)
def test_what_is_no_moment_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python(text)
