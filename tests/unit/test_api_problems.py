"""The words of problems are a contract: each code has a status, a page in the docs, and says what to do next."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.api.problem_types import TYPES
from service.api.problems import Problem, answer, catalogue, of_error, of_status
from service.core import errors

DOCS = Path(__file__).resolve().parents[2] / "docs"
WRITE = "python -c \"from service.api.problems import catalogue; print(catalogue(), end='')\" > docs/problems.md"


def test_the_docs_list_every_problem_in_its_own_words() -> None:
    assert (DOCS / "problems.md").read_text() == catalogue(), f"write it anew: {WRITE}"


@pytest.mark.parametrize("code", list(TYPES))
def test_each_problem_says_whether_to_send_it_again(code: str) -> None:
    kind = TYPES[code]
    assert re.fullmatch(r"[a-z_]+", code)
    assert kind.title[0].isupper()
    assert kind.text.endswith(".")
    # What may have been done is never safe under another key, and only what may pass later is worth a repeat.
    assert kind.retryable == (kind.status in (408, 429, 500, 503))
    response = answer(Problem(code, "detail"), request_id="r")
    assert ("retry-after" in response.headers) == (kind.status in (429, 503))
    assert ("www-authenticate" in response.headers) == (kind.status == 401)


@pytest.mark.parametrize(
    "kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.CounterfoilError)]
)
def test_each_error_of_ours_is_a_problem_that_exists(kind: type[errors.CounterfoilError]) -> None:
    made = kind("x", effect_id="e") if kind is errors.DedupeConflict else kind("x")
    assert of_error(made).code in TYPES


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 418, 500, 502])
def test_each_status_of_the_framework_is_a_problem_that_exists(status: int) -> None:
    assert of_status(status).code in TYPES
