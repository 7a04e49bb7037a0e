"""Whether a webhook comes from Stripe: an HMAC over its time and its raw bytes, with any of the active secrets.

Stripe docs, "Receive Stripe events in your webhook endpoint" (verify signatures manually): `t=…,v1=…`, several `v1`
while a secret is rolled; HMAC-SHA256 over `{t}.{body}`; a copy that is replayed later is too old.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

# Stripe's own libraries accept five minutes. They accept any future time as well; we do not, since a signed body with
# a far date would stay good for ever.
TOLERANCE_SECONDS = 300
# A header of Stripe's has one or two signatures. The bound keeps a stranger from making us compute thousands.
SIGNATURES_MAX = 8
HEADER_LENGTH_MAX = 1024


class BadSignature(Exception):
    """Not proven to come from Stripe; the message says why, and nothing of what was sent."""


def verify(header: str | None, body: bytes, secrets: Sequence[str], *, now: float) -> None:
    """Return when the body is Stripe's and fresh. Raises BadSignature. Nothing of `body` is looked at before."""
    stamp, proofs = _read(header)
    if abs(now - int(stamp)) > TOLERANCE_SECONDS:
        raise BadSignature(f"the signature's time is more than {TOLERANCE_SECONDS} seconds away from ours")
    signed = stamp.encode() + b"." + body
    genuine = False
    for secret in secrets:
        expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
        for proof in proofs:
            # No early end: how long it takes says nothing about which secret or which byte was right.
            genuine |= hmac.compare_digest(expected, proof.encode())
    if not genuine:
        raise BadSignature("no signature matches: is COUNTERFOIL_STRIPE_WEBHOOK_SECRET this endpoint's secret?")


def _read(header: str | None) -> tuple[str, list[str]]:
    """The time, in digits, and the signatures of scheme v1; others (v0 is for tests) are not looked at."""
    if not header:
        raise BadSignature("Stripe-Signature is missing")
    if len(header) > HEADER_LENGTH_MAX:
        raise BadSignature("Stripe-Signature is malformed")
    pairs = [part.partition("=") for part in header.split(",")]
    stamps = [value for name, _, value in pairs if name.strip() == "t"]
    proofs = [value for name, _, value in pairs if name.strip() == "v1"]
    if len(stamps) != 1 or not (stamps[0].isascii() and stamps[0].isdigit()) or len(stamps[0]) > 15:
        raise BadSignature("Stripe-Signature is malformed: it has no time")
    if not 1 <= len(proofs) <= SIGNATURES_MAX:
        raise BadSignature("Stripe-Signature is malformed: it has no signature of scheme v1")
    return stamps[0], proofs
