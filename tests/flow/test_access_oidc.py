"""Bearer tokens of an issuer: real keys from a real HTTP server, rotated, withheld and forged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from service.api import oidc
from service.api.oidc import Claims, Issuer, Unusable
from service.api.problems import Problem
from service.settings import Settings
from tests.flow.doors import CHARGE, Door, served
from tests.flow.logins import key_of
from tests.server import Server


class Shown:
    """The issuer: what it shows, and how often it was asked."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.asked = 0
        self.away = False
        self.say: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.ended = threading.Event()
        shown = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown.asked += 1
                if shown.say:
                    shown.say(self)
                    return
                body = json.dumps({"keys": [key.as_dict(private=False) for key in shown.keys]}).encode()
                self.send_response(503 if shown.away else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def shown() -> Iterator[Shown]:
    yield from showing()


def showing() -> Iterator[Shown]:
    made = Shown()
    made.keys = [RSAKey.generate_key(2048, {"kid": "one"})]
    yield made
    made.ended.set()
    made.server.shutdown()
    made.server.server_close()


def issuer(shown: Shown) -> Issuer:
    return Issuer(Settings(api_auth="keys", oidc_issuer=shown.url, oidc_audience="counterfoil"))


def token(shown: Shown, key: Any = None, *, alg: str = "RS256", **changes: Any) -> str:
    signing = key or shown.keys[0]
    claims = {"iss": shown.url, "aud": "counterfoil", "sub": "svc-1", "tenant": "acme", "scope": "charges:write effects:read",
              "exp": int(time.time()) + 600, **changes}  # fmt: skip
    header = {"alg": alg, "kid": signing.kid}
    return jwt.encode(header, {k: v for k, v in claims.items() if v is not None}, signing, algorithms=[alg])


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_a_good_token_says_whose_it_is(shown: Shown) -> None:
    assert issuer(shown).check(token(shown)) == Claims("svc-1", "acme", frozenset({"charges:write", "effects:read"}))


@pytest.mark.parametrize(
    "changes",
    [{"iss": "https://other.test"}, {"aud": "other"}, {"aud": None}, {"exp": 1}, {"exp": None}, {"sub": None},
     {"sub": "a\nb"}, {"tenant": None}, {"tenant": "a b"}, {"tenant": ["acme"]}, {"nbf": 9_999_999_999}, {"scope": 7}],
    ids=str,
)  # fmt: skip
def test_a_token_with_a_wrong_claim_is_not_taken(shown: Shown, changes: dict[str, Any]) -> None:
    assert isinstance(issuer(shown).check(token(shown, **changes)), Unusable)


def test_a_token_signed_otherwise_is_not_taken(shown: Shown) -> None:
    checking = issuer(shown)
    forged = RSAKey.generate_key(2048, {"kid": "one"})
    assert isinstance(checking.check(token(shown, forged)), Unusable)
    assert isinstance(checking.check(token(shown, ECKey.generate_key("P-384", {"kid": "one"}), alg="ES384")), Unusable)
    # The public key as a shared secret (RFC 8725 §2.1), and no signature at all.
    body = token(shown).split(".")[1]
    head = _encoded(b'{"alg":"HS256","kid":"one"}')
    proof = hmac.new(shown.keys[0].as_pem(private=False), f"{head}.{body}".encode(), hashlib.sha256).digest()
    confused = f"{head}.{body}.{_encoded(proof)}"
    assert isinstance(checking.check(confused), Unusable)
    none = _encoded(b'{"alg":"none","kid":"one"}')
    assert isinstance(checking.check(f"{none}.{body}."), Unusable)


def test_keys_are_kept_and_a_rotation_is_noticed_at_once(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "ASK_AGAIN_SECONDS", 0.0)
    checking = issuer(shown)
    assert all(isinstance(checking.check(token(shown)), Claims) for _ in range(5))
    assert shown.asked == 1
    shown.keys.append(RSAKey.generate_key(2048, {"kid": "two"}))
    assert isinstance(checking.check(token(shown, shown.keys[1])), Claims)
    assert shown.asked == 2


def test_made_up_key_ids_do_not_make_us_ask_each_time(shown: Shown) -> None:
    checking = issuer(shown)
    checking.check(token(shown))
    stranger = shown.keys[0].as_dict(private=True)
    for number in range(20):
        made_up = RSAKey.import_key({**stranger, "kid": f"x{number}"})
        assert isinstance(checking.check(token(shown, made_up)), Unusable)
    assert shown.asked == 1


def test_an_issuer_that_is_away_is_a_problem_only_for_keys_nobody_has_seen(shown: Shown) -> None:
    known = issuer(shown)
    good = token(shown)
    assert isinstance(known.check(good), Claims)
    shown.away = True
    assert isinstance(known.check(good), Claims)
    with pytest.raises(Problem) as found:
        issuer(shown).check(good)
    assert found.value.code == "issuer_unavailable"


def _said(status: int, body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def say(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return say


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.close_connection = True


WRONG_ANSWERS = {
    "an error": _said(500, b"oops"), "no JSON": _said(200, b"<html>"), "no document": _said(200, b"[]"),
    "no keys": _said(200, b"{}"), "keys of no sort": _said(200, b'{"keys": [{"kty": "x"}]}'), "not text": _said(200, b"\xff\x00"),
    "too much": _said(200, b" " * (oidc.JWKS_BYTES_MAX + 1)), "half of it": _cut, "a deep nest": _said(200, b"[" * 100_000),
    "a number too long": _said(200, b'{"keys": ' + b"9" * 10_000 + b"}"),
}  # fmt: skip


@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_an_issuer_that_answers_wrongly_is_one_that_is_away(shown: Shown, answer: str) -> None:
    good = token(shown)
    shown.say = WRONG_ANSWERS[answer]
    with pytest.raises(Problem) as found:
        issuer(shown).check(good)
    assert found.value.code == "issuer_unavailable"


def test_an_issuer_that_points_elsewhere_is_not_followed(shown: Shown) -> None:
    good = token(shown)
    shown.say = _said(302, b"", Location=f"{shown.url}/other")
    with pytest.raises(Problem):
        issuer(shown).check(good)
    assert shown.asked == 1


@pytest.mark.parametrize("slow", ["silent", "dripping"])
def test_an_issuer_that_is_slow_is_given_up(shown: Shown, slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "FETCH_SECONDS", 0.3)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if slow == "dripping":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with suppress(OSError):
            while not shown.ended.wait(0.02):  # until the test is over
                handler.wfile.write(b" " if slow == "dripping" else b"")

    good = token(shown)
    shown.say = drip
    with pytest.raises(Problem) as found:
        issuer(shown).check(good)
    assert found.value.code == "issuer_unavailable"


def test_an_issuer_that_shows_no_key_of_the_token_has_answered(shown: Shown) -> None:
    good = token(shown)
    shown.say = _said(200, b'{"keys": []}')
    assert isinstance(issuer(shown).check(good), Unusable)


def test_a_key_of_a_sort_that_is_new_to_us_does_not_hide_the_others(shown: Shown) -> None:
    """RFC 7517 §5: what is not understood is ignored."""
    good = token(shown)
    known = shown.keys[0].as_dict(private=False)
    for strange in ({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA"}, {}, {"kty": "RSA", "kid": "half"}, 7):
        shown.say = _said(200, json.dumps({"keys": [strange, known]}).encode())
        assert isinstance(issuer(shown).check(good), Claims), strange


def test_a_key_that_was_withdrawn_is_no_longer_taken(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    checking, old = issuer(shown), token(shown)
    assert isinstance(checking.check(old), Claims)
    shown.keys = [RSAKey.generate_key(2048, {"kid": "two"})]
    monkeypatch.setattr(oidc, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(oidc, "ASK_AGAIN_SECONDS", 0.0)
    assert isinstance(checking.check(token(shown)), Claims)
    assert isinstance(checking.check(old), Unusable)


# --- at the door -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def standing() -> Iterator[Shown]:
    yield from showing()


@pytest.fixture(scope="module")
def door(standing: Shown, postgres: Server, template: str) -> Iterator[Door]:
    more = {"api_auth": "keys", "oidc_issuer": standing.url, "oidc_audience": "counterfoil"}
    with postgres.database(template=template) as name, served(postgres.url_of(name), **more) as running:
        yield running


def _signed(head: dict[str, Any], body: str, secret: bytes | None) -> str:
    said = f"{_encoded(json.dumps(head).encode())}.{body}"
    return f"{said}.{_encoded(hmac.new(secret, said.encode(), hashlib.sha256).digest()) if secret else ''}"


def _bad(shown: Shown) -> dict[str, str]:
    """Tokens that must not open the door, by what is wrong with them."""
    good, key = token(shown), shown.keys[0]
    head, body, proof = good.split(".")
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    public = {"PEM": key.as_pem(private=False), "DER": key.as_der(private=False),
              "JWK": json.dumps(key.as_dict(private=False)).encode()}  # fmt: skip
    own_key = {"alg": "RS256", "kid": "one", "jwk": stranger.as_dict(private=False)}
    return {
        "expired": token(shown, exp=1),
        "another audience": token(shown, aud="other"),
        "another issuer": token(shown, iss="https://other.test"),
        "not yet": token(shown, nbf=9_999_999_999),
        "alg none": _signed({"alg": "none", "kid": "one"}, body, None),
        "alg None": _signed({"alg": "None", "kid": "one"}, body, None),
        "no signature": f"{head}.{body}.",
        "signed by a stranger": token(shown, stranger),
        "brings its own key": _signed(own_key, body, b"x"),
        "a sort that its key is not": _signed({"alg": "ES256", "kid": "one"}, body, b"x"),
        "claims that were changed": f"{head}.{_encoded(b'{}')}.{proof}",
        "unknown key": token(shown, RSAKey.generate_key(2048, {"kid": "nobody's"})),
        "an extension that must be understood": _signed({"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1}, body, b"x"),
        "no token": "a.b.c",
        "nothing in it": "..",
        **{f"the public key as a secret, {f}": _signed({"alg": "HS256", "kid": "one"}, body, s) for f, s in public.items()},
    }  # fmt: skip


def test_the_door_refuses_every_bad_token_in_one_sentence(door: Door, standing: Shown) -> None:
    for what, bad in _bad(standing).items():
        answer = door.call("GET", "/v1/effects", headers={"Authorization": f"Bearer {bad}"})
        assert (answer.status, answer.json["code"]) == (401, "unauthenticated"), what
        assert 'error="invalid_token"' in answer.headers["www-authenticate"], what
        assert bad not in answer.raw.decode(), what
        body = bad.split(".")[1]
        assert not [line for line in door.lines if "Traceback" in line or (len(body) > 1 and body in line)], what


def test_the_door_takes_a_token_for_its_tenant_and_scopes(door: Door, standing: Shown) -> None:
    given = {"Authorization": f"Bearer {token(standing)}", "Idempotency-Key": "o:1"}
    made = door.call("POST", "/v1/charges", CHARGE, headers=given)
    assert made.status == 202
    assert door.call("POST", "/v1/refunds", {}, headers=given).status == 403
    other = {"Authorization": f"Bearer {token(standing, tenant='other')}"}
    assert door.call("GET", f"/v1/effects/{made.json['id']}", headers=other).status == 404
    events = door.call("GET", f"/v1/effects/{made.json['id']}/events", headers=given).json["events"]
    assert events[0]["actor"] == "oidc:svc-1"


def test_the_door_says_503_while_the_issuer_is_away_and_keys_go_on(
    shown: Shown, postgres: Server, template: str
) -> None:
    good = token(shown)
    shown.server.shutdown()
    shown.server.server_close()
    more = {"api_auth": "keys", "oidc_issuer": shown.url, "oidc_audience": "counterfoil"}
    with postgres.database(template=template) as name, served(postgres.url_of(name), **more) as door:
        for _ in range(3):
            answer = door.call("GET", "/v1/effects", headers={"Authorization": f"Bearer {good}"})
            assert (answer.status, answer.json["code"]) == (503, "issuer_unavailable")
            assert answer.json["retryable"] is True
            assert int(answer.headers["retry-after"]) >= 1
        key = key_of(postgres.url_of(name), "acme", "effects:read")
        assert door.call("GET", "/v1/effects", headers={"Authorization": f"Bearer {key}"}).status == 200
        assert not [line for line in door.lines if "Traceback" in line or good.split(".")[1] in line]
        assert [line for line in door.lines if "issuer_unavailable" in line]
