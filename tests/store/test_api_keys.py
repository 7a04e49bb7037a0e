"""API keys: shown once, kept as a hash, rotated with two live ones; each write stands in the operators' log."""

from __future__ import annotations

from typing import Any

import pytest

from service.core.errors import ValidationError
from service.engine import keys
from service.engine.keys import Checker, Created, Pass, Refused
from tests.store.books import Books


def made(**changes: Any) -> Created:
    return keys.create(
        **{"tenant": "acme", "name": "shop", "scopes": ["effects:read"], "actor": "me", "door": "cli", **changes}
    )


@pytest.mark.usefixtures("database")
def test_a_key_is_shown_once_and_only_its_hash_is_kept(books: Books) -> None:
    new = made()
    assert new.secret.startswith(new.key.id + "_")
    [row] = books.rows("select * from api_keys")
    assert new.secret not in str(row)
    assert new.secret.rpartition("_")[2] not in repr(new)
    assert row["hash"] == keys.digest(new.secret)
    assert [one["verb"] for one in books.rows("select verb from actions")] == ["keys create"]


@pytest.mark.usefixtures("database")
def test_a_rotation_leaves_two_live_keys_and_no_more() -> None:
    old = made()
    new = keys.rotate(old.key.id, grace_seconds=3600, actor="me", door="cli")
    assert (new.key.tenant, new.key.scopes, new.key.rotates) == ("acme", old.key.scopes, old.key.id)
    assert all(isinstance(Checker().check(one.secret), Pass) for one in (old, new))
    with pytest.raises(ValidationError, match="rotated before"):
        keys.rotate(old.key.id, grace_seconds=3600, actor="me", door="cli")


@pytest.mark.usefixtures("database")
def test_a_third_key_of_a_line_is_refused_until_one_has_ended() -> None:
    """Rotated twice within the grace, three keys would open the same door, and nobody would look for the first."""
    first = made()
    second = keys.rotate(first.key.id, grace_seconds=3600, actor="me", door="cli")
    with pytest.raises(ValidationError, match=f"keys revoke {first.key.id} first, or rotate with --grace 0s"):
        keys.rotate(second.key.id, grace_seconds=3600, actor="me", door="cli")
    assert all(isinstance(Checker().check(one.secret), Pass) for one in (first, second)), "nothing was changed"
    # The heir has leaked: at once means at once, and two live on.
    third = keys.rotate(second.key.id, grace_seconds=0, actor="me", door="cli")
    found = [Checker().check(one.secret) for one in (first, second, third)]
    assert [isinstance(one, Pass) for one in found] == [True, False, True]
    keys.revoke(first.key.id, actor="me", door="cli")
    fourth = keys.rotate(third.key.id, grace_seconds=3600, actor="me", door="cli")
    live = [one.id for one in keys.listed(tenant="acme")]
    assert live == [third.key.id, fourth.key.id]


@pytest.mark.usefixtures("database")
def test_no_grace_ends_the_older_key_at_once() -> None:
    old = made()
    keys.rotate(old.key.id, grace_seconds=0, actor="me", door="cli")
    assert Checker().check(old.secret) == Refused("expired")


@pytest.mark.usefixtures("database")
def test_a_revoked_key_is_refused_by_who_has_not_seen_it_and_cannot_be_rotated() -> None:
    old = made()
    assert keys.revoke(old.key.id, actor="me", door="cli").state == "revoked"
    assert Checker().check(old.secret) == Refused("revoked")
    with pytest.raises(ValidationError):
        keys.rotate(old.key.id, grace_seconds=1, actor="me", door="cli")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "wrong", [{"scopes": []}, {"scopes": ["all"]}, {"tenant": "a b"}, {"name": " "}, {"expires_in": 0.0}, {"burst": 3},
              {"per_second": 0.0}, {"per_second": float("nan")}, {"expires_in": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made(**wrong)
