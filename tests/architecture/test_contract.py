"""What others rely on is pinned: task names, what callers import, the wire, the diagram, the tree of errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tasks
from service.broker.messages import Message, read_effect_ids
from service.core import errors
from service.core.errors import CounterfoilError, ValidationError
from service.core.state import mermaid

ROOT = Path(__file__).resolve().parents[2]
ID = "0198c0de-0000-7000-8000-000000000001"


def test_task_names_are_wire_format():
    assert tasks.charge.name == "charge"
    assert tasks.email.name == "email"
    assert tasks.refund.name == "refund"
    assert tasks.capture.name == "capture"
    assert tasks.cancel.name == "cancel"
    ours = {name for name in tasks.app.tasks if not name.startswith("celery.")}
    assert ours == {"charge", "email", "refund", "capture", "cancel", "watch", "inbox", "audit", "prune"}
    assert set(tasks.KINDS) == {"charge", "email", "refund", "capture", "cancel"}


def test_what_callers_import_is_complete_and_there():
    kinds = {"charge", "email", "refund", "capture", "cancel"}
    assert set(tasks.__all__) == {"EffectResult", "KINDS", "app", "task_of", "watch", *kinds}
    assert all(hasattr(tasks, name) for name in tasks.__all__)


def test_a_message_carries_ids_and_nothing_else():
    assert Message("charge", "charge", (ID,)).kwargs() == {"effect_ids": [ID]}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"effect_ids": [ID]}),
        ((), {"effect_id": ID}),
        ((ID,), {}),
        (([ID],), {}),
        ((), {"effect_ids": [ID.upper(), ID]}),
    ],
)
def test_messages_of_every_version_in_flight_are_understood(args, kwargs):
    assert read_effect_ids(args, kwargs) == [ID]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((), {"amount": 4200}),
        ((), {"effect_ids": []}),
        ((), {"effect_ids": ID}),
        ((), {"effect_ids": [ID, "x"]}),
        ((), {"effect_ids": [1]}),
        ((), {"effect_ids": {ID: 1}}),
        ((), {"effect_ids": [ID] * 1001}),
        ((), {"effect_ids": [ID], "amount": 4200}),
        ((), {"effect_id": [ID]}),
        ((ID, ID), {}),
        ((ID,), {"effect_ids": [ID]}),
        (({"effect_ids": [ID]},), {}),
        ((None,), {}),
    ],
)
def test_a_message_that_is_not_ours_is_refused_without_its_content(args, kwargs):
    with pytest.raises(ValidationError) as caught:
        read_effect_ids(args, kwargs)
    assert "4200" not in str(caught.value)


def test_the_state_diagram_of_the_docs_is_the_table_in_code():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    blocks = [block.strip() for block in re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)]
    diagrams = [block for block in blocks if block.startswith("stateDiagram")]
    assert diagrams == [mermaid().strip()]


def test_every_error_of_ours_is_in_the_tree_and_has_a_machine_word_of_its_own():
    ours = [
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and issubclass(thing, CounterfoilError) and thing is not CounterfoilError
    ]
    codes = [error.code for error in ours]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)
    tree = errors.__doc__ or ""
    assert [error.__name__ for error in ours if error.__name__ not in tree] == []
