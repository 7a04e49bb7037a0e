"""Bearer tokens of an issuer: real keys from a real HTTP server, rotated, withheld and forged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from service.api import oidc
from service.api.oidc import Claims, Issuer, Unusable
from service.api.problems import Problem
from service.settings import Settings
from tests.flow.doors import CHARGE, served
from tests.server import Server


class Shown:
    """The issuer: what it shows, and how often it was asked."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.asked = 0
        self.away = False
        shown = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown.asked += 1
                body = json.dumps({"keys": [key.as_dict(private=False) for key in shown.keys]}).encode()
                self.send_response(503 if shown.away else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def shown() -> Iterator[Shown]:
    made = Shown()
    made.keys = [RSAKey.generate_key(2048, {"kid": "one"})]
    yield made
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


def test_the_door_takes_a_token_for_its_tenant_and_scopes(shown: Shown, postgres: Server, template: str) -> None:
    more = {"api_auth": "keys", "oidc_issuer": shown.url, "oidc_audience": "counterfoil"}
    with postgres.database(template=template) as name, served(postgres.url_of(name), **more) as door:
        given = {"Authorization": f"Bearer {token(shown)}", "Idempotency-Key": "o:1"}
        made = door.call("POST", "/v1/charges", CHARGE, headers=given)
        assert made.status == 202
        assert door.call("POST", "/v1/refunds", {}, headers=given).status == 403
        other = {"Authorization": f"Bearer {token(shown, tenant='other')}"}
        assert door.call("GET", f"/v1/effects/{made.json['id']}", headers=other).status == 404
        late = door.call("GET", "/v1/effects", headers={"Authorization": f"Bearer {token(shown, exp=1)}"})
        assert (late.status, late.json["code"]) == (401, "unauthenticated")
        events = door.call("GET", f"/v1/effects/{made.json['id']}/events", headers=given).json["events"]
        assert events[0]["actor"] == "oidc:svc-1"
