"""Who calls. Without keys the API listens on loopback only, and whoever reaches it is the tenant `default`.

With `COUNTERFOIL_API_AUTH=keys` each request shows a key (`cfk_…`) or, where an issuer is set, a bearer token. What it
may see is its tenant's alone, by every query's own condition and, for the API's own login, by row-level security.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

from anyio.to_thread import run_sync
from fastapi import Request

from service import settings
from service.api import oidc
from service.api.problems import Problem
from service.engine import keys
from service.engine.keys import Pass, Rate, Refused
from service.store import tenancy
from tasks.effect_task import DEFAULT_TENANT

SCOPES = frozenset(keys.SCOPES)
_LOOPBACK_ACTOR = "loopback"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="counterfoil"'}  # RFC 6750 §3; no error code when nothing was shown
_INVALID = {"WWW-Authenticate": 'Bearer realm="counterfoil", error="invalid_token"'}
_WHY = {
    "unknown": "no such key",
    "expired": "the key has expired: counterfoil keys rotate, or create a new one",
    "revoked": "the key was revoked",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """`actor` stands in journals, `tenant` is whose effects are seen, `scopes` say what may be done."""

    actor: str
    tenant: str
    scopes: frozenset[str]


def lacks(scope: str) -> Problem:
    """What a key without this scope is answered (RFC 6750, section 3.1)."""
    challenge = f'Bearer realm="counterfoil", error="insufficient_scope", scope="{scope}"'
    return Problem("forbidden", f"the key lacks the scope {scope}", headers={"WWW-Authenticate": challenge})


def require(scope: str | None) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, who must have this scope (None: any key will do)."""

    async def caller(request: Request) -> Caller:
        found = await _caller(request)
        if scope is not None and scope not in found.scopes:
            raise lacks(scope)
        # In the request's own task, so that its threads ask the database for this tenant too.
        tenancy.enter(found.tenant)
        return found

    return caller


async def _caller(request: Request) -> Caller:
    if settings.load().api_auth == "loopback":
        return Caller(_LOOPBACK_ACTOR, DEFAULT_TENANT, SCOPES)
    token = _bearer(request)
    if not token.startswith(keys.PREFIX):
        return await _of_issuer(token)
    found: Pass | Refused | None = _checker().at_once(token)
    if found is None:
        found = await run_sync(_checker().check, token)
    if isinstance(found, Refused):
        raise _refusal(found)
    if found.rate:
        request.state.rate_headers = _rate_headers(found.rate)
    return _of_key(found)


def _bearer(request: Request) -> str:
    shown = request.headers.getlist("authorization")
    if not shown:
        raise Problem("unauthenticated", "send Authorization: Bearer cfk_…", headers=_CHALLENGE)
    scheme, _, token = shown[0].partition(" ")
    if len(shown) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Problem("unauthenticated", "send one header Authorization: Bearer cfk_…", headers=_CHALLENGE)
    return token.strip()


async def _of_issuer(token: str) -> Caller:
    chosen = settings.load()
    if chosen.oidc_issuer is None:
        raise Problem("unauthenticated", _WHY["unknown"], headers=_INVALID)
    found = await run_sync(_issuer().check, token)
    if isinstance(found, oidc.Unusable):
        raise Problem("unauthenticated", found.why, headers=_INVALID)
    return Caller(f"oidc:{found.subject}", found.tenant, found.scopes & SCOPES)


def _of_key(found: Pass) -> Caller:
    return Caller(f"key:{found.id}", found.tenant, found.scopes)


def _refusal(found: Refused) -> Problem:
    if found.why != "limited" or found.rate is None:
        return Problem("unauthenticated", _WHY[found.why], headers=_INVALID)
    wait = max(1, math.ceil(found.wait_seconds))
    return Problem(
        "rate_limited",
        f"this key may ask {found.rate.per_second:g} times a second, {found.rate.burst} at once",
        headers={"Retry-After": str(wait), **_rate_headers(found.rate)},
    )


def _rate_headers(rate: Rate) -> dict[str, str]:
    """What is left, as draft-ietf-httpapi-ratelimit-headers-10 spells it."""
    seconds = max(1, math.ceil(rate.burst / rate.per_second))
    return {"RateLimit-Policy": f'"key";q={rate.burst};w={seconds}', "RateLimit": f'"key";r={rate.left};t={seconds}'}


@cache
def _checker() -> keys.Checker:
    return keys.Checker()


@cache
def _issuer() -> oidc.Issuer:
    return oidc.Issuer(settings.load())
