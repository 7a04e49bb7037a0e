"""Bearer tokens of one issuer (JWT, RFC 7519 and 8725): a signature of an allowed sort, by a key that the issuer shows.

The issuer's keys are asked for now and then, and at once when a token names one that is not known (a rotation). While
the issuer does not answer, keys that were seen in the last day are still good; a token that none of them has signed is
answered with 503, since nobody can say whether it is good.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry, extract_compact
from joserfc.jwt import JWTClaimsRegistry

from service.api.problems import Problem
from service.core.errors import ValidationError
from service.core.keys import check_name
from service.settings import Settings

FRESH_SECONDS = 300.0  # a key that the issuer has withdrawn is taken for so long
STALE_SECONDS_MAX = 86400.0  # and while the issuer is away for so long
# Tokens with made-up key ids must not make us ask the issuer each time.
ASK_AGAIN_SECONDS = 5.0
FETCH_SECONDS = 3.0
JWKS_BYTES_MAX = 256 * 1024
TOKEN_LENGTH_MAX = 8_192
LEEWAY_SECONDS = 30  # between the issuer's clock and ours
_SUBJECT = re.compile(r"[A-Za-z0-9_.:@|/-]{1,128}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says."""

    subject: str
    tenant: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A token that is not taken, and why, without any of its values."""

    why: str


class _NoRedirect(HTTPRedirectHandler):
    """Keys come from the address that was set, not from where that points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: a redirect is an error."""


class Issuer:
    """The issuer's keys, kept for a while. One per process, safe to call from threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.jwks_url
        self._algorithms = list(settings.algorithms)
        self._tenant_claim = settings.oidc_tenant_claim
        self._scope_claim = settings.oidc_scope_claim
        self._registry = JWSRegistry(algorithms=self._algorithms)
        self._claims = JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": settings.oidc_issuer or ""},
            aud={"essential": True, "value": settings.oidc_audience or ""},
            exp={"essential": True},
            sub={"essential": True},
        )
        # No proxy of the environment: the address is ours to choose.
        self._opener: OpenerDirector = build_opener(ProxyHandler({}), _NoRedirect())
        self._keys: KeySet | None = None
        self._got_at = self._asked_at = float("-inf")
        self._turn = threading.Lock()

    def check(self, token: str) -> Claims | Unusable:
        """Whose token it is. Raises Problem when the issuer would have to be asked and does not answer."""
        kid = self._kid(token)
        if isinstance(kid, Unusable):
            return kid
        keys = self._keys_with(kid)
        if keys is None:
            return Unusable("the token is signed by a key that its issuer does not show")
        try:
            found = jwt.decode(token, keys, registry=self._registry)
            self._claims.validate(found.claims)
        except (JoseError, ValueError, TypeError) as error:
            return Unusable(_sentence(error))
        return self._read(found.claims)

    def _kid(self, token: str) -> str | Unusable | None:
        """The key that the token names. The header decides about nothing else: RFC 8725 §3.1."""
        if len(token) > TOKEN_LENGTH_MAX or token.count(".") != 2:
            return Unusable("neither a key (cfk_…) nor a token (JWT)")
        try:
            header = extract_compact(token.encode()).headers()
        except (JoseError, ValueError, TypeError):
            return Unusable("neither a key (cfk_…) nor a token (JWT)")
        if header.get("alg") not in self._algorithms:
            return Unusable("the token's signature is not of a sort that is taken here")
        kid = header.get("kid")
        return kid if kid is None or isinstance(kid, str) else Unusable("the token names its key oddly")

    def _read(self, claims: dict[str, Any]) -> Claims | Unusable:
        subject, scopes = claims["sub"], claims.get(self._scope_claim, "")
        # It stands in journals: an identifier, not a text.
        if not _SUBJECT.fullmatch(subject):
            return Unusable("the token's subject is no identifier")
        try:
            tenant = check_name(claims.get(self._tenant_claim), field="tenant")
        except ValidationError:
            return Unusable(f"the token names no tenant in its claim {self._tenant_claim!r}")
        words = scopes.split() if isinstance(scopes, str) else scopes
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return Unusable(f"the token's claim {self._scope_claim!r} is no list of scopes")
        return Claims(subject, tenant, frozenset(words))

    def _keys_with(self, kid: str | None) -> KeySet | None:
        """The issuer's keys, one of which has this id; None when none has. Raises Problem."""
        known = self._known()
        if known and _has(known, kid) and monotonic() < self._got_at + FRESH_SECONDS:
            return known
        # Who can do with what is known does not wait for an issuer that is slow; one asks for all.
        if not self._turn.acquire(blocking=not (known and _has(known, kid))):
            return known
        try:
            return self._ask(kid)
        finally:
            self._turn.release()

    def _known(self) -> KeySet | None:
        return self._keys if monotonic() < self._got_at + STALE_SECONDS_MAX else None

    def _ask(self, kid: str | None) -> KeySet | None:
        if monotonic() >= self._asked_at + ASK_AGAIN_SECONDS:
            self._asked_at = monotonic()
            self._fetch()
        known = self._known()
        if known and _has(known, kid):
            return known
        if known is None or self._got_at < self._asked_at:
            raise _unavailable()
        return None

    def _fetch(self) -> None:
        try:
            self._keys = _key_set(self._read_url())
        except (OSError, URLError, ValueError, KeyError, TypeError, RecursionError, JoseError) as error:
            log.warning("issuer_unavailable", error_type=type(error).__name__)
        else:
            self._got_at = self._asked_at  # as old as the question

    def _read_url(self) -> bytes:
        asked = Request(self._url, headers={"Accept": "application/json"})  # noqa: S310 - settings allow https only
        with self._opener.open(asked, timeout=FETCH_SECONDS) as answer:
            return _body(answer)


def _key_set(raw: bytes) -> KeySet:
    """The keys that can be read; one of a sort that is new to us is no reason to lose the others (RFC 7517 §5).

    None shown is an answer as well: all were withdrawn.
    """
    shown = json.loads(raw)["keys"]
    if not isinstance(shown, list):
        raise TypeError("no list of keys")
    keys = [key for one in shown if (key := _key(one)) is not None]
    if shown and not keys:
        raise ValueError("no key that can be read")
    return KeySet(keys)


def _key(shown: Any) -> Key | None:
    try:
        return JWKRegistry.import_key(shown)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _body(answer: Any) -> bytes:
    """All of it in time: the socket's own limit is for each read, and one byte a second is never late."""
    until, raw = monotonic() + FETCH_SECONDS, b""
    while chunk := answer.read1(JWKS_BYTES_MAX + 1):
        raw += chunk
        if len(raw) > JWKS_BYTES_MAX or monotonic() > until:
            raise ValueError("too large, or too slow")
    return raw


def _has(keys: KeySet, kid: str | None) -> bool:
    """Without an id the only key is meant, or nothing is."""
    ids = [key.kid for key in keys]
    return len(ids) == 1 if kid is None else kid in ids


def _sentence(error: Exception) -> str:
    name = getattr(error, "error", "invalid_token")
    return {
        "expired_token": "the token has expired",
        "invalid_claim": "the token is not meant for this API, or not valid yet",
        "missing_claim": "the token lacks one of iss, aud, exp, sub",
        "bad_signature": "the token's signature is wrong",
    }.get(name, "the token is not valid")


def _unavailable() -> Problem:
    return Problem(
        "issuer_unavailable", "the issuer of tokens does not answer, so nobody can say whether yours is good"
    )
