"""The callers in docs/examples run as they are printed: an order and its charge are one commit in each framework."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy.orm import Session

from service.store.database import engine
from tests.store.answers import final
from tests.store.books import Books

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.fixture
def shop(books: Books, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The shop's table beside ours, and its modules made anew for this database."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", books.url)
    made = importlib.import_module("shop")
    made.Base.metadata.create_all(engine())
    yield made
    for name in ("shop", "flask_shop", "fastapi_shop", "django_shop"):
        module = sys.modules.pop(name, None)
        if made_engine := getattr(module, "engine", None):
            # An asynchronous engine's connections belong to an event loop that is over.
            getattr(made_engine, "sync_engine", made_engine).dispose(close=name != "fastapi_shop")


class Browser:
    """One framework's test client; POST and GET give (status, document)."""

    def __init__(self, name: str) -> None:
        self.name = name
        module = importlib.import_module(f"{name}_shop")
        if name == "flask":
            self.client = module.app.test_client()
        elif name == "fastapi":
            from starlette.testclient import TestClient

            self.client = TestClient(module.app)
        else:
            from django.test import Client

            self.client = Client()

    def post(self, path: str, document: dict[str, object]) -> tuple[int, dict[str, object]]:
        if self.name == "django":
            answer = self.client.post(path, document, content_type="application/json")
        else:
            answer = self.client.post(path, json=document)
        return answer.status_code, answer.json if self.name == "flask" else answer.json()

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        answer = self.client.get(path)
        return answer.status_code, answer.json if self.name == "flask" else answer.json()


@pytest.mark.parametrize("name", ["flask", "fastapi", "django"])
@pytest.mark.usefixtures("shop")
def test_an_order_and_its_charge_are_one_commit_in_each_framework(books: Books, name: str) -> None:
    pytest.importorskip(name)
    browser = Browser(name)
    status, first = browser.post("/orders/17", {"amount": 4200})
    assert (status, first["created"]) == (202, True)
    assert browser.post("/orders/17", {"amount": 4200}) == (202, {**first, "created": False})
    assert browser.post("/orders/17", {"amount": 1})[0] == 409
    status, refused = browser.post("/orders/18", {"amount": 0})
    assert (status, refused["field"]) == (400, "amount")
    assert books.rows("select number, amount, charge_id from shop_orders") == [
        {"number": "17", "amount": 4200, "charge_id": first["charge"]}
    ]
    assert books.count("effects") == 1
    assert browser.get(f"/charges/{first['charge']}") == (200, {"state": "pending"})
    assert browser.get("/charges/019a2f6e-0000-7000-8000-000000000017")[0] == 404
    [attempt] = books.claim(str(first["charge"]))
    books.settle(final(attempt))
    assert browser.get(f"/charges/{first['charge']}")[1]["state"] == "succeeded"


def test_the_way_up_from_a_task_of_ones_own_is_an_import_a_key_and_the_session(books: Books) -> None:
    before, after = ((EXAMPLES / "upgrade" / f"{name}.py").read_text() for name in ("before", "after"))
    code = [text.partition("from __future__")[2].splitlines() for text in (before, after)]
    changed = [line for line in difflib.unified_diff(*code, n=0, lineterm="") if line[:3] not in ("---", "+++")]
    added = [line[1:].strip() for line in changed if line[0] == "+" and '"""' not in line]
    assert added == [
        "from tasks import charge",
        'dedupe_key=f"order:{order_id}:charge",',
        "session=session,",
        "session.commit()",
    ]
    namespace: dict[str, object] = {}
    exec(compile(after, "after.py", "exec"), namespace)  # noqa: S102 - the example itself, as it is printed
    for _ in range(2):
        with Session(engine()) as session:
            namespace["checkout"](session, 17, 4200)
    assert [row["dedupe_key"] for row in books.rows("select dedupe_key from effects")] == ["order:17:charge"]
