"""API keys: made and shown once, kept as a hash, rotated with two live keys, revoked within a second everywhere.

A key is `cfk_<id>_<secret>`: the first two parts are its public name, which logs and lists may show; the last one is
256 random bits, so sha-256 is all the hashing it needs. Each write stands in the operators' log in the same commit.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from time import monotonic
from typing import Any, Literal

from service.core.errors import KeyNotFound, ValidationError
from service.core.keys import check_name
from service.store import actions, api_keys
from service.store.actions import Door
from service.store.api_keys import Facts
from service.store.database import statement, transaction

SCOPES = ("charges:write", "refunds:write", "emails:write", "effects:read", "operations:read", "operations:write")
PREFIX = "cfk_"
# A key without a rate is looked up once in this time and process, not once a request: so long may a revoked key still
# be taken. One that has a rate is looked up by each request anyway.
CACHE_SECONDS = 1.0
CACHED_MAX = 4_096
GRACE_SECONDS_MAX = 90 * 86400.0
LIFE_SECONDS_MAX = 10 * 366 * 86400.0
PER_SECOND_MAX = 100_000.0
_FORM = re.compile(r"(cfk_[a-z2-7]{8})_[A-Za-z0-9_-]{43}")
_NAME_LENGTH_MAX = 100
_NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. `state`: live, expired or revoked; `rotates` is the key that it takes over from."""

    id: str
    tenant: str
    name: str
    scopes: tuple[str, ...]
    state: str
    per_second: float | None
    burst: int | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    rotates: str | None
    revoked_at: datetime | None
    revoked_by: str | None
    used_at: datetime | None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "scopes": list(self.scopes)}


@dataclass(frozen=True, slots=True)
class Created:
    """A new key and its secret, which nobody can show again."""

    key: Key
    secret: str

    def __repr__(self) -> str:
        return f"Created({self.key.id}, secret=***)"


@dataclass(frozen=True, slots=True)
class Rate:
    """How a key with a rate stands after a request."""

    per_second: float
    burst: int
    left: int


@dataclass(frozen=True, slots=True)
class Pass:
    """The key is good."""

    id: str
    tenant: str
    scopes: frozenset[str]
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not. `expired`, `revoked` and `limited` are told only to who has the whole key."""

    why: Literal["unknown", "expired", "revoked", "limited"]
    rate: Rate | None = None
    wait_seconds: float = 0.0


def create(
    *,
    tenant: str,
    name: str,
    scopes: Sequence[str],
    actor: str,
    door: Door,
    expires_in: float | None = None,
    per_second: float | None = None,
    burst: int | None = None,
) -> Created:
    """Make a key for one tenant. Raises ValidationError, DependencyUnavailable."""
    _check(tenant, name, scopes)
    if expires_in is not None and not 0 < expires_in <= LIFE_SECONDS_MAX:
        raise ValidationError("expires: more than nothing, ten years at most", field="expires")
    pace = _pace(per_second, burst)
    with transaction() as connection:
        made = {"tenant": tenant, "name": name, "scopes": sorted(set(scopes)), "expires_in": expires_in, **pace}
        return _write(connection, "keys create", actor=actor, door=door, like={**made, "rotates": None})


def rotate(id_: str, *, grace_seconds: float, actor: str, door: Door) -> Created:
    """Make the key's heir; both live until the older one expires, in `grace_seconds` at most.

    Two of a line live at once and no third: while an heir's own predecessor lives, only a rotation without grace takes
    its place. The heir has the same rights and the same length of life. Raises KeyNotFound, ValidationError.
    """
    if not 0 <= grace_seconds <= GRACE_SECONDS_MAX:
        raise ValidationError("grace: 0 to 90 days", field="grace")
    with transaction() as connection:
        api_keys.lock(connection, id_)
        old = _found(api_keys.one(connection, id_), id_)
        if (heir := api_keys.heir(connection, id_)) is not None:
            raise ValidationError(f"{id_} was rotated before: its heir {heir['id']} is live; rotate that", field="id")
        if grace_seconds and (older := _live(api_keys.one(connection, old.rotates or ""))):
            raise ValidationError(
                f"{older.id}, which {id_} takes over from, lives until {older.expires_at:%Y-%m-%d %H:%M %Z}, and a "
                f"third key does not: counterfoil keys revoke {older.id} first, or rotate with --grace 0s",
                field="id",
            )
        retired = api_keys.retire(connection, id_, grace=grace_seconds)
        if retired is None:
            raise ValidationError(f"{id_} is {old.state}: create a new key instead", field="id")
        life = (old.expires_at - old.created_at).total_seconds() if old.expires_at else None
        shared = {name: getattr(old, name) for name in ("tenant", "name", "scopes", "per_second", "burst")}
        made = {**shared, "expires_in": life, "rotates": id_}
        detail = {"rotates": id_, "old_expires_at": retired["expires_at"]}
        return _write(connection, "keys rotate", actor=actor, door=door, like=made, detail=detail)


def revoke(id_: str, *, actor: str, door: Door, reason: str | None = None) -> Key:
    """End a key: no process takes it a second later (CACHE_SECONDS). Again is harmless. Raises KeyNotFound."""
    with transaction() as connection:
        row = api_keys.revoke(connection, id_, actor=actor)
        if row is None:
            return _found(api_keys.one(connection, id_), id_)
        actions.write(connection, actor=actor, door=door, verb="keys revoke", subject=id_, reason=reason)
        return _key(row)


def listed(*, tenant: str | None = None, whole: bool = False) -> list[Key]:
    """The live keys, oldest first; with `whole` expired and revoked ones too."""
    with statement() as connection:
        return [_key(row) for row in api_keys.listed(connection, tenant=tenant, whole=whole)]


class Checker:
    """Says whose a key is. One per process, safe to call from threads; never remembers a key, only its hash."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, str, Facts]] = OrderedDict()
        self._turn = threading.Lock()

    def at_once(self, token: str) -> Pass | None:
        """The answer for a key that was looked up a moment ago and has no rate; asks nobody."""
        found = self._recall(digest(token))
        return Pass(found[0], found[1].tenant, found[1].scopes) if found and found[1].per_second is None else None

    def check(self, token: str) -> Pass | Refused:
        """Look the key up, and take one request out of its bucket. Raises DependencyUnavailable."""
        form = _FORM.fullmatch(token)
        if form is None:
            return Refused("unknown")
        id_, hashed = form.group(1), digest(token)
        known = self._recall(hashed)
        with statement() as connection:
            facts = known[1] if known else api_keys.look(connection, id_)
            # An unknown id is compared as well: how long an answer takes tells nothing of which ids there are.
            if not hmac.compare_digest(facts.hash if facts else _NOBODY, hashed) or facts is None:
                return Refused("unknown")
            if facts.revoked or facts.expired:
                return Refused("revoked" if facts.revoked else "expired")
            if facts.per_second is not None:
                taken = api_keys.take(connection, id_, hashed)
                self._remember(hashed, id_, facts)
                return _limited(id_, facts, taken) if taken else Refused("unknown")
            if facts.used_long_ago:
                api_keys.used(connection, id_)
        self._remember(hashed, id_, facts)
        return Pass(id_, facts.tenant, facts.scopes)

    def _recall(self, hashed: str) -> tuple[str, Facts] | None:
        with self._turn:
            found = self._known.get(hashed)
        return (found[1], found[2]) if found and found[0] > monotonic() else None

    def _remember(self, hashed: str, id_: str, facts: Facts) -> None:
        left = CACHE_SECONDS if facts.seconds_left is None else min(CACHE_SECONDS, facts.seconds_left)
        with self._turn:
            self._known[hashed] = (monotonic() + left, id_, facts)
            self._known.move_to_end(hashed)
            while len(self._known) > CACHED_MAX:
                self._known.popitem(last=False)


def digest(token: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _limited(id_: str, facts: Facts, taken: api_keys.Taken) -> Pass | Refused:
    if taken.facts.revoked or taken.facts.expired:  # just now
        return Refused("revoked" if taken.facts.revoked else "expired")
    rate = Rate(facts.per_second or 0.0, facts.burst or 0, int(taken.tokens or 0))
    if taken.tokens is None:
        return Refused("limited", rate, max(0.0, taken.wait))
    return Pass(id_, facts.tenant, facts.scopes, rate)


def _write(
    connection: Any,
    verb: str,
    *,
    actor: str,
    door: Door,
    like: Mapping[str, Any],
    detail: Mapping[str, Any] | None = None,
) -> Created:
    # Base32 in lower case: no letter that is read as a digit, and a double click selects all of it.
    id_ = PREFIX + base64.b32encode(secrets.token_bytes(5)).decode().lower()
    secret = f"{id_}_{secrets.token_urlsafe(32)}"
    row = api_keys.insert(connection, id_=id_, hash_=digest(secret), actor=actor, expires_at=None, **like)
    key = _key(row)
    told = {"tenant": key.tenant, "name": key.name, "scopes": list(key.scopes), "expires_at": key.expires_at}
    actions.write(connection, actor=actor, door=door, verb=verb, subject=id_, detail={**told, **(detail or {})})
    return Created(key, secret)


def _check(tenant: str, name: str, scopes: Sequence[str]) -> None:
    check_name(tenant, field="tenant")
    if not name.strip() or len(name) > _NAME_LENGTH_MAX or not name.isprintable():
        raise ValidationError(f"name: who uses the key, 1 to {_NAME_LENGTH_MAX} printable characters", field="name")
    if not scopes or set(scopes) - set(SCOPES):
        raise ValidationError(f"scope: at least one of {', '.join(SCOPES)}", field="scope")


def _pace(per_second: float | None, burst: int | None) -> dict[str, Any]:
    if per_second is None:
        if burst is not None:
            raise ValidationError("burst: only together with a rate", field="burst")
        return {"per_second": None, "burst": None}
    if not 0 < per_second <= PER_SECOND_MAX:
        raise ValidationError(f"rate: more than 0 and at most {PER_SECOND_MAX:.0f} requests a second", field="rate")
    chosen = max(1, round(per_second)) if burst is None else burst
    if not 0 < chosen <= 10 * PER_SECOND_MAX:
        raise ValidationError("burst: at least 1", field="burst")
    return {"per_second": per_second, "burst": chosen}


def _live(row: Mapping[str, Any] | None) -> Key | None:
    return _key(row) if row is not None and row["state"] == "live" else None


def _found(row: Mapping[str, Any] | None, id_: str) -> Key:
    if row is None:
        raise KeyNotFound(f"there is no key {id_[:60]}; `counterfoil keys list --all` shows them", field="id")
    return _key(row)


def _key(row: Mapping[str, Any]) -> Key:
    return Key(**{**row, "scopes": tuple(row["scopes"])})
