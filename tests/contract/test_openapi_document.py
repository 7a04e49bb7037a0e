"""The OpenAPI document is whole: each route has a name, examples that are valid, all its answers, and who may call it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from service.api.app import create_app
from service.api.problem_types import TYPES
from service.api.submission import TASKS
from service.settings import Settings

jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="pip install schemathesis")


def document() -> dict[str, Any]:
    return dict(create_app(Settings()).openapi())


def operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for path, method, operation in operations():
        assert operation.get("summary"), (path, method)
        assert operation.get("tags"), (path, method)


def test_every_operation_tells_all_its_problems_with_an_example() -> None:
    for path, method, operation in operations():
        if not path.startswith("/v1/"):
            continue
        problems = {status for status in operation["responses"] if status >= "400"}
        assert {"400", "401", "403", "406", "429", "500", "503"} <= problems, (path, method)
        for status in problems:
            content = operation["responses"][status]["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["example"]["status"] == int(status)
        if "requestBody" in operation:
            assert {"413"} <= problems, (path, method)


def test_each_problem_type_is_told_where_its_status_is() -> None:
    told = str(document())
    assert [code for code in TYPES if f"`{code}`" not in told] == ["method_not_allowed"]  # of no route


def test_only_probes_and_webhooks_are_without_a_key() -> None:
    schemes = document()["components"]["securitySchemes"]
    assert schemes["key"]["scheme"] == "bearer"
    for path, method, operation in operations():
        keyed = path.startswith("/v1/") and "webhooks" not in path
        assert ("security" in operation) == keyed, (path, method)


@pytest.mark.parametrize("kind", list(TASKS))
def test_the_examples_of_every_kind_are_valid_and_would_be_taken(kind: str) -> None:
    whole = document()
    for path, _, operation in operations():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = {**content["schema"], "components": whole["components"]}
            for name, example in content.get("examples", {}).items():
                assert jsonschema_rs.is_valid(schema, example["value"]), (path, name)
                if operation["operationId"] == f"create_{kind}":
                    request = {field: value for field, value in example["value"].items() if field != "options"}
                    assert TASKS[kind].order(None, request, dedupe_key="k").kind == kind


def test_a_body_is_as_strict_in_the_document_as_at_the_door() -> None:
    whole = document()
    [schema] = [
        operation["requestBody"]["content"]["application/json"]["schema"]
        for _, _, operation in operations()
        if operation["operationId"] == "create_charge"
    ]
    good = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
    valid = jsonschema_rs.validator_for({**schema, "components": whole["components"]})
    assert valid.is_valid(good)
    for change in (
        {"amount": 0},
        {"amount": 100_000_000},
        {"currency": "EUR"},
        {"currency": "isk", "amount": 4201},
        {"currency": "kwd", "amount": 4201},
        {"payment_method": "visa"},
        {"surprise": 1},
        {"metadata": {"effect_id": "mine"}},
        {"receipt_email": "nobody"},
        {"options": {"priority": 10}},
        {"options": {"queue": "nowhere"}},
        {"options": {"eta": "2199-01-01T00:00:00Z", "countdown": 1}},
    ):
        assert not valid.is_valid({**good, **change}), change


def test_what_has_been_made_says_what_can_be_asked_of_it() -> None:
    """Links (OpenAPI 3.1, Link Object) lead to operations that there are, under their parameters' names."""
    named = {operation["operationId"]: path for path, _, operation in operations()}
    linked = set()
    for _, _, operation in operations():
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                linked.add(operation["operationId"])
                assert all(f"{{{name}}}" in named[link["operationId"]] for name in link["parameters"])
    assert linked == {f"create_{kind}" for kind in TASKS} | {"plan_operation"}
