"""OpenAPI of what we read ourselves: exact schemas of the requests, headers, and the problems of each route.

Exact, so that generated clients refuse what we would refuse, and so that a machine can look for answers that the
document does not promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service import settings
from service.api import headers
from service.api.problem_types import TYPES
from service.api.problems import MEDIA_TYPE, ProblemDocument
from service.api.submission import Options
from service.core import money
from service.core.keys import DEDUPE_KEY_LENGTH_MAX
from tasks.effect_task import EffectTask
from tasks.requests import METADATA_KEYS_MAX, OUR_METADATA

TEXT = {"type": "string"}
# The pattern that tasks.mail checks; JSON Schema's `$` is the very end.
_MAILBOX = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
_UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_METADATA = {
    "type": "object",
    "maxProperties": METADATA_KEYS_MAX,
    "propertyNames": {"minLength": 1, "maxLength": 40, "not": {"enum": sorted(OUR_METADATA)}},
    "additionalProperties": {"type": "string", "maxLength": 500},
    "description": "kept with the provider's object (Stripe: Metadata)",
}
_ADDRESS = {"type": "string", "pattern": _MAILBOX, "maxLength": 254, "examples": ["ada@example.com"]}
_EXACT: Mapping[str, Mapping[str, Any]] = {
    "amount": {
        "type": "integer",
        "minimum": 1,
        "maximum": money.AMOUNT_MAX,
        "description": "minor units: 4200 is 42.00 eur; some currencies want whole units or tens",
    },
    "currency": {"type": "string", "enum": sorted(money.currencies()), "description": "lowercase ISO-4217"},
    "charge": {"type": "string", "pattern": _UUID, "description": "the id of the charge effect"},
    "to": _ADDRESS,
    "sender": {"anyOf": [_ADDRESS, {"type": "null"}], "default": None},
    "receipt_email": {
        "anyOf": [_ADDRESS, {"type": "null"}],
        "default": None,
        "description": "gets one receipt, once the charge has succeeded",
    },
    "metadata": _METADATA,
    "subject": {"type": "string", "minLength": 1, "maxLength": 200, "format": "single-line"},
}
KEY_PARAMETER = {
    "name": headers.NAME,
    "in": "header",
    "required": True,
    "schema": {**TEXT, "minLength": 1, "maxLength": 2 * DEDUPE_KEY_LENGTH_MAX + 2, "format": "idempotency-key"},
    "description": "The name of the effect, for ever: a quoted string (RFC 8941) or a bare token, 1 to 255 characters",
    "example": '"order:17:charge"',
}
PREFER_PARAMETER = {
    "name": "Prefer",
    "in": "header",
    "schema": {**TEXT, "format": "header-wish"},
    "description": (
        f"`wait=N`: answer when the outcome is there, after {headers.WAIT_SECONDS_MAX} seconds at most; "
        "`respond-async`: answer at once (RFC 7240). The first that is understood counts"
    ),
    "example": "wait=10",
}
REQUEST_ID_PARAMETER = {
    "name": "X-Request-Id",
    "in": "header",
    "schema": {**TEXT, "format": "header-wish"},
    "description": "Follows the effect into every log line; replaced when it is not 1 to 64 of A-Za-z0-9._-",
}
ANSWER_HEADERS = {
    "X-Request-Id": {"schema": TEXT, "description": "what to quote when asking us about this request"},
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}, "description": "seconds"}}
_ALWAYS = (400, 401, 403, 406, 429, 500, 503)
"""Whatever the route: a bad request, no key, not allowed, not JSON, too many, and what is our fault."""

PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with: these, and those that every route has."""
    return {status: _problem(status) for status in sorted({*_ALWAYS, *statuses})}


def shown(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route answers that shows something: it, or a problem."""
    return {200: {"headers": ANSWER_HEADERS}, **problems(*statuses)}


def _problem(status: int) -> dict[str, Any]:
    codes = [code for code, kind in TYPES.items() if kind.status == status]
    retry = _RETRY_AFTER if status in (429, 503) else {}
    first = TYPES[codes[0]]
    example = {
        "type": f"/problems/{codes[0]}",
        "title": first.title,
        "status": status,
        "detail": first.text,
        "code": codes[0],
        "retryable": first.retryable,
        "safe_new_key": first.safe_new_key,
        "request_id": "019a2f6e-0000-7000-8000-0000000000aa",
    }
    return {
        "description": "; ".join(f"`{code}`: {TYPES[code].title.lower()}" for code in codes),
        "headers": {**ANSWER_HEADERS, **retry},
        "content": {MEDIA_TYPE: {"schema": PROBLEM_REF, "example": example}},
    }


def request_schema(task: EffectTask) -> dict[str, Any]:
    """The request of one kind, as exact as JSON Schema can say it."""
    found = task.model.model_json_schema()
    found.pop("description", None)
    properties = {name: dict(_EXACT.get(name, schema)) for name, schema in found["properties"].items()}
    if "policy" in properties:
        properties["policy"] = {
            "type": "string",
            "enum": ["at_most_once", "at_least_once"],
            "default": "at_least_once",
            "description": "after an unknown outcome over SMTP",
        }
    schema = {key: value for key, value in found.items() if key != "$defs"} | {"properties": properties}
    if "currency" in properties:
        schema["allOf"] = [_multiples(money.WHOLE_ONLY, 100), _multiples(money.MULTIPLES_OF_TEN, 10)]
    return schema


def body_schema(task: EffectTask) -> dict[str, Any]:
    """The body of a route of one kind: the request, and `options` beside it."""
    schema = request_schema(task)
    options = {"$ref": "#/components/schemas/Options"}
    return {**schema, "properties": {**schema["properties"], "options": options}}


def _multiples(currencies: frozenset[str], of: int) -> dict[str, Any]:
    """Stripe takes these only so (Stripe: Supported currencies)."""
    within = {"properties": {"currency": {"enum": sorted(currencies)}}, "required": ["currency"]}
    return {"if": within, "then": {"properties": {"amount": {"multipleOf": of}}}}


def body(schema: Mapping[str, Any], examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A required JSON body."""
    return {"required": True, "content": {"application/json": {"schema": dict(schema), "examples": dict(examples)}}}


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body that is read as this model, with nothing to point at."""
    found = kind.model_json_schema()
    inner = found.pop("$defs", {})
    for name, schema in found.get("properties", {}).items():
        if "$ref" in schema:
            found["properties"][name] = inner[schema["$ref"].rpartition("/")[2]]
    return found


def components() -> dict[str, Any]:
    """The schemas that references point at, beyond those that the framework finds."""
    made = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    inner: Mapping[str, Any] = made.pop("$defs", {})
    options = Options.model_json_schema()
    # Which lanes there are is this installation's choice.
    options["properties"]["queue"]["anyOf"] = [enum(settings.load().lane_names), {"type": "null"}]
    return {"Problem": made, **inner, "Options": options}


def links_to(parameter: str, *operations: str) -> dict[str, Any]:
    """What can be asked next with the `id` of this answer: for tools that read the document, not for callers."""
    return {name: {"operationId": name, "parameters": {parameter: "$response.body#/id"}} for name in operations}


def headers_of(*names: str) -> dict[str, Any]:
    """Headers of an answer by name."""
    return {**ANSWER_HEADERS, **{name: {"schema": TEXT} for name in names}}


def enum(values: Sequence[str]) -> dict[str, Any]:
    """One of these words."""
    return {"type": "string", "enum": list(values)}


def complete(app: FastAPI, *, keys: bool) -> None:
    """Add to the document what the framework cannot know: who may call, and the schemas that we point at.

    `keys`: this process asks for one.
    """
    made = app.openapi
    security: list[dict[str, list[str]]] = [{"key": []}] if keys else [{}, {"key": []}]

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            schema["info"]["description"] = _ABOUT
            parts = schema.setdefault("components", {})
            parts["schemas"] = {**parts.get("schemas", {}), **components()}
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": _KEY_ABOUT}}
            for path, methods in schema["paths"].items():
                for operation in methods.values():
                    _finish(path, operation, security)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way (Extending OpenAPI)


def _finish(path: str, operation: dict[str, Any], security: list[dict[str, list[str]]]) -> None:
    if path.startswith("/v1/") and not path.startswith("/v1/webhooks"):
        operation["security"] = security
    # The framework's own 422 for parameters is a 400 of ours.
    if "HTTPValidationError" in str(operation["responses"].get("422", "")):
        del operation["responses"]["422"]


_ABOUT = (
    "Charges, refunds and e-mails that happen exactly once. Whatever is accepted here is committed in Postgres "
    "and goes on by itself; the `Idempotency-Key` is its name for ever. Errors are problems (RFC 9457), each "
    "described at the address in its `type`."
)
_KEY_ABOUT = (
    "An API key, `cfk_…` (`counterfoil keys create`). Not looked at while the API listens on loopback only, without "
    "keys (COUNTERFOIL_API_AUTH=loopback)."
)
