"""Every kind of problem the API answers with (RFC 9457): its code is the last part of its address for ever.

`retryable`: the same request may be sent again as it is. `safe_new_key`: nothing stands under this key because of
this request, so sending it under another key cannot make a second effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """One kind of problem."""

    status: int
    title: str
    text: str
    retryable: bool = False
    safe_new_key: bool = True


_REQUEST: Mapping[str, Type] = {
    "invalid_json": Type(400, "The body is not JSON", "Send one JSON object in UTF-8, without duplicate names."),
    "invalid_request": Type(
        400,
        "The request is refused",
        "Nothing was written. `field` names what to change, `detail` says how, `errors` lists all that was found. A "
        "status of 422 is left to mean that the request does not fit what is on the books already.",
    ),
    "idempotency_key_missing": Type(
        400,
        "Idempotency-Key is missing",
        'Name the effect: Idempotency-Key: "order:17:charge". Send the same name on every try of the same effect.',
    ),
    "idempotency_key_invalid": Type(
        400,
        "Idempotency-Key is malformed",
        "A quoted string (RFC 8941) or a bare token: 1 to 255 printable ASCII characters without spaces, once.",
    ),
    "idempotency_key_repeated": Type(
        400,
        "A key stands twice in one batch",
        "Two items of one kind have the same idempotency_key; `detail` names the first. The second was not written. If "
        "they are one effect, send it once; if they are two, each needs a key of its own.",
        safe_new_key=False,
    ),
    "batch_refused": Type(
        400,
        "The batch is refused",
        "It was to be all or nothing (`atomic`), and nothing was written. `errors` names each bad item by its index.",
    ),
    "invalid_cursor": Type(
        400,
        "The cursor is not of this list",
        "Take it, and the filters beside it, from `next` or the header Link of the page before, unchanged; or begin "
        "again without a cursor.",
    ),
    "unauthenticated": Type(
        401,
        "No valid key",
        "Send Authorization: Bearer cfk_… with a key that is neither revoked nor expired (`counterfoil keys list`).",
    ),
    "forbidden": Type(
        403,
        "The key may not do this",
        "Nothing was written. `detail` names the scope that the key lacks (`counterfoil keys create --scope …`).",
    ),
    "effect_not_found": Type(404, "No such effect", "No effect of yours has this id."),
    "operation_not_found": Type(404, "No such operation", "No operation of yours has this id."),
    "group_not_found": Type(404, "No such group", "No failure of yours is in a group of this id now."),
    "not_found": Type(404, "No such page", "The paths are listed in /openapi.json."),
    "method_not_allowed": Type(405, "This method is not offered here", "The header Allow lists those that are."),
    "not_acceptable": Type(
        406, "Only JSON is spoken here", "Nothing was done. Let Accept name application/json, or send none."
    ),
    "request_timeout": Type(
        408,
        "The body did not arrive",
        "Nothing was written: the body was not complete in time. Send the same request again.",
        retryable=True,
    ),
    "body_too_large": Type(413, "The body is too large", "The limit is 512 KiB, for a batch 8 MiB."),
    "unsupported_media_type": Type(415, "Send JSON", "Content-Type: application/json, in UTF-8."),
}

_BOOKS: Mapping[str, Type] = {
    "operation_state": Type(
        409,
        "The operation is not where this is possible",
        "Nothing was changed. `detail` says how the operation stands; GET /v1/operations/{id} shows it.",
    ),
    "dedupe_conflict": Type(
        422,
        "The key was used with another request",
        "The first request stands unchanged. If this one is meant to be the same effect, send the first request's "
        "body. Take a new key only if it is meant to be another effect: it will happen in addition.",
        safe_new_key=False,
    ),
    "charge_unfit": Type(
        422,
        "There is no such charge to act upon",
        "Nothing was written. `field` names what does not fit the charge on the books: its id, its currency, or more "
        "than its amount.",
    ),
    "batch_conflict": Type(
        422,
        "The batch does not fit the books",
        "It was to be all or nothing (`atomic`), and nothing was written. `errors` names each item that does not fit "
        "by its index: a key that was used with another request, a charge that is not there.",
        safe_new_key=False,
    ),
    "list_too_wide": Type(
        422,
        "The list takes too long to find",
        "Few rows match, and most of the ledger would have to be read to find them. Narrow it: by `created_since` and "
        "`created_until`, `ref`, `concerns`, `caused_by`, or `kind` with `key_prefix`.",
    ),
}

_OURS: Mapping[str, Type] = {
    "rate_limited": Type(
        429,
        "Too many requests with this key",
        "Nothing was done. Send the same request again after the seconds in Retry-After.",
        retryable=True,
    ),
    "internal_error": Type(
        500,
        "A bug of ours",
        "The effect may or may not have been accepted. Send the same request with the same key again; if it stays, "
        "quote the request id.",
        retryable=True,
        safe_new_key=False,
    ),
    "dependency_unavailable": Type(
        503,
        "The database does not answer",
        "The effect may or may not have been accepted. Send the same request with the same key again, after the "
        "seconds in Retry-After.",
        retryable=True,
        safe_new_key=False,
    ),
    "issuer_unavailable": Type(
        503,
        "The issuer of tokens does not answer",
        "Nothing was done: the token is signed by a key that has to be asked for, and its issuer "
        "(COUNTERFOIL_OIDC_JWKS_URL) does not answer. Send the same request again after the seconds in Retry-After.",
        retryable=True,
    ),
    "overloaded": Type(
        503,
        "Too many requests at once",
        "Nothing was done: more requests wait for the database than can be answered soon. Send the same request again "
        "after the seconds in Retry-After.",
        retryable=True,
    ),
}

_WEBHOOKS: Mapping[str, Type] = {
    "webhook_refused": Type(
        400,
        "The webhook is refused",
        "Nothing was kept. Either it does not come from Stripe, or not from the endpoint and mode whose secret and key "
        "are set here; `detail` says which.",
    ),
    "webhooks_not_set_up": Type(
        503,
        "Webhooks are not set up",
        "Set COUNTERFOIL_STRIPE_WEBHOOK_SECRET and restart the API. Stripe tells each event again for three days.",
        retryable=True,
    ),
}

TYPES: Mapping[str, Type] = {**_REQUEST, **_BOOKS, **_OURS, **_WEBHOOKS}
