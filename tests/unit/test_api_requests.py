"""What the door asks of a request before it becomes an order: options, scopes, and moments that can be read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.api.access import Caller
from service.api.problems import Problem
from service.api.submission import SCOPES, TASKS, check_scope, order_of
from service.core.errors import ValidationError
from tasks import charge, rules

REQUEST = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
CALLER = Caller("key:cfk_1", "shop", frozenset({"charges:write"}))


def test_an_order_is_of_its_callers_tenant() -> None:
    order = order_of(charge, REQUEST, {"priority": 9, "countdown": 5}, key="k", caller=CALLER)
    assert (order.tenant, order.priority, order.after_seconds, order.dedupe_key) == ("shop", 9, 5.0, "k")


def test_a_kind_needs_its_scope() -> None:
    assert set(SCOPES) == set(TASKS)
    check_scope(CALLER, "charge")
    for kind in ("email", "refund", "capture", "cancel"):
        with pytest.raises(Problem, match=SCOPES[kind]) as refused:
            check_scope(CALLER, kind)
        assert refused.value.code == "forbidden"


@pytest.mark.parametrize("options", [{"eta": "soon"}, {"priority": "9"}, {"x": 1}, [], "later"])
def test_wrong_options_name_their_place(options: object) -> None:
    with pytest.raises(ValidationError) as refused:
        order_of(charge, REQUEST, options, key="k", caller=CALLER)
    assert str(refused.value.field).startswith("options")


@pytest.mark.parametrize(
    "eta",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12))),
        datetime(1999, 12, 31, tzinfo=UTC),
    ],
)
def test_a_moment_that_the_database_could_not_give_back_is_refused(eta: datetime) -> None:
    """Year 0 and year 10000 in UTC: Postgres keeps them, and reading the effect failed for ever after."""
    with pytest.raises(ValidationError, match="years 2000 to 2199"):
        rules.not_before(eta, None)


def test_all_that_is_wrong_with_a_request_is_found_at_once_and_never_without_end() -> None:
    with pytest.raises(ValidationError) as refused:
        charge.order(None, {"payment_method": 7, "n" * 500: 1}, dedupe_key="k")
    fields = [field for field, _ in refused.value.found]
    assert {"amount", "currency", "payment_method"} <= set(fields)
    assert max(map(len, fields)) <= 100
    with pytest.raises(ValidationError) as refused:
        charge.order(None, {**REQUEST, **{f"x{n}": 1 for n in range(100)}}, dedupe_key="k")
    assert len(refused.value.found) <= 20
