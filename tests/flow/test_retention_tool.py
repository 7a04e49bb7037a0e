"""`counterfoil db prune` and `effects erase` as a person types them, upon effects that a whole house has carried out.

The plan comes first and changes nothing; what is needed stays and says why; afterwards each door answers the same key
with the same effect, and another request under it is refused (I4).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from service.core.errors import DedupeConflict
from service.embedded import binaries
from tests.flow.brokers import Valkey
from tests.flow.doors import Door, Shell, served
from tests.flow.system import System
from tests.flow.terminal import ME, shell  # noqa: F401 - a fixture

ADDRESS = "ada.planted@example.test"
NAME = "Planta Lovelace"
PAID = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "receipt_email": ADDRESS,
        "description": f"Order of {NAME}"}  # fmt: skip
LETTER = {"to": ADDRESS, "subject": f"Dear {NAME}", "text": f"For {NAME}"}
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(system: System, shell: Shell) -> Call:
    """The command on the system's database; it never shows an address or a name."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = shell.run(*words, settings={name.lower(): value for name, value in system.settings.items()})
        assert "Traceback" not in done.stderr
        assert ADDRESS not in done.stdout + done.stderr
        assert NAME not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def door(system: System) -> Iterator[Door]:
    with served(system.database) as open_door:
        yield open_door


def told(done: subprocess.CompletedProcess[str], code: int) -> Any:
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def aged(system: System, days: int, *ids: str) -> None:
    """As if all of it had happened so many days before."""
    with psycopg.connect(system.database, autocommit=True) as db:
        db.execute("alter table effects disable trigger user")
        db.execute(
            "update effects set created_at = created_at - i, first_sent_at = first_sent_at - i, settled_at = settled_at - i"
            " from make_interval(days => %s) i where id = any(%s)",
            (days, list(ids)),
        )
        db.execute("alter table effects enable trigger user")


def repeated(door: Door, effect_id: str) -> None:
    """By HTTP and by Python: the same call finds the same effect, another one under its key is refused."""
    from tasks import charge

    again = door.charge("order:1", PAID)
    assert (again.json["id"], again.headers["idempotent-replayed"]) == (effect_id, "true")
    assert (other := door.charge("order:1", {**PAID, "amount": 4300})).status == 422, other.raw
    found = charge.apply_async(kwargs=PAID, dedupe_key="order:1")
    assert (found.id, found.created, found.get(timeout=1)["state"]) == (effect_id, False, "succeeded")
    with pytest.raises(DedupeConflict):
        charge.apply_async(kwargs={**PAID, "amount": 4300}, dedupe_key="order:1")


def test_prune_plans_then_does_it_and_leaves_what_may_be_needed(system: System, call: Call, door: Door) -> None:
    old = door.charge("order:1", PAID).json["id"]
    planned = system.charge()
    plan = told(call("outbox", "park", "--id", planned, "--json"), 0)["plan"]
    young, fresh = system.charges(2)
    system.relay()
    system.worker()
    system.settles(old, planned, young, fresh)
    [receipt] = [row["id"] for row in system.sql("select id::text from effects where caused_by = %s", old)]
    system.oracle.check()  # which reads requests, and some will be gone
    aged(system, 91, old, receipt, planned)
    aged(system, 89, young)

    found = told(call("db", "prune", "--json"), 0)
    assert (found["requests"], found["execute"]) == (3, False)
    assert "nothing was written: --execute does it" in call("db", "prune").stderr
    assert told(call("effects", "show", old, "--json"), 0)["request"] == "kept"

    done = told(call("db", "prune", "--execute", "--json"), 0)
    assert (done["requests"], done["kept"], done["complete"]) == (2, {"operation": 1}, True)
    shown = {one: told(call("effects", "show", one, "--json"), 0) for one in (old, receipt, planned, young, fresh)}
    assert [one["request"] for one in shown.values()] == ["gone", "gone", "kept", "kept", "kept"]
    assert (shown[old]["amount"], shown[old]["state"], shown[old]["dedupe_key"]) == (4200, "succeeded", "order:1")
    assert "purged or erased" in call("effects", "show", old).stderr
    assert call("db", "prune").returncode == 3
    assert told(call("db", "prune", "--json"), 3)["kept"] == {"operation": 1}
    repeated(door, old)

    system.sql(
        "update operations set planned_at = planned_at - interval '2 hours', expires_at = now() where id = %s", plan
    )
    assert told(call("db", "prune", "--execute", "--json"), 0)["requests"] == 1, "nobody can start that plan any more"
    assert [system.charged(one) for one in (old, planned, young, fresh)] == [1, 1, 1, 1]


def test_a_refusal_of_prune_says_what_was_wrong(call: Call) -> None:
    for words in (["--seconds", "0"], ["--seconds", "soon"], ["--pace", "-1"], ["--dry-run"]):
        assert call("db", "prune", "--execute", *words).returncode == 2, words


def everywhere(system: System, door: Door, valkey_server: Valkey) -> dict[str, bytes]:
    """Wherever it might be read: the whole database as pg_dump has it, the broker's memory, what each process logged."""
    dump = [str(binaries.postgres() / "pg_dump"), "--dbname", system.database]
    with valkey_server.client() as broker:
        memory = b"".join(name + (broker.dump(name) or b"") for name in broker.scan_iter())
    return {
        "database": subprocess.run(dump, check=True, capture_output=True).stdout,
        "broker": memory,
        "logs": "".join(one.text() for one in system.programs).encode(),
        "log of the API": "".join(door.lines).encode(),
    }


def holding(system: System, door: Door, valkey_server: Valkey) -> set[str]:
    words = (ADDRESS.encode(), b"ada.planted", NAME.encode(), b"Planta")
    return {
        where
        for where, content in everywhere(system, door, valkey_server).items()
        if any(word in content for word in words)
    }


def test_erase_plans_asks_for_a_reason_refuses_what_is_open_and_leaves_nothing_anywhere(
    system: System, call: Call, door: Door, valkey_server: Valkey
) -> None:
    paid = door.charge("order:1", PAID).json["id"]
    sent = door.call("POST", "/v1/emails", LETTER, headers={"Idempotency-Key": "letter:1"}).json["id"]
    relay, worker = system.relay(), system.worker()
    system.settles(paid, sent)
    system.oracle.check()  # which reads requests, and these will be gone
    for program in (relay, worker):
        program.stop()
    open_one = door.call("POST", "/v1/emails", LETTER, headers={"Idempotency-Key": "letter:2"}).json["id"]
    assert holding(system, door, valkey_server) == {"database"}

    words = ("effects", "erase", "--to", ADDRESS.upper())
    found = told(call(*words, "--json"), 4)
    assert (len(found["ids"]), found["unsettled"], found["erased"]) == (3, [open_one], [])
    assert "--execute --reason … does it" in call(*words).stderr
    assert call(*words, "--execute").returncode == 2
    refused = call(*words, "--execute", "--reason", f"she asked: {ADDRESS}", "--json")
    assert told(refused, 2)["error"]["field"] == "reason"
    assert [told(call("effects", "show", one, "--json"), 0)["request"] for one in found["ids"]] == ["kept"] * 3

    done = told(call(*words, "--execute", "--reason", "request 17", "--json"), 4)
    assert sorted(done["erased"]) == sorted(found["ids"])
    assert call(*words, "--execute", "--reason", "request 17").returncode == 6, "only the open one is left"
    shown = told(call("effects", "show", paid, "--json"), 0)
    last = shown["journal"][-1]
    assert (shown["request"], last["fact"], last["actor"], last["evidence"]) == (
        "gone", "erased", ME, {"reason": "request 17"},
    )  # fmt: skip
    repeated(door, paid)

    system.relay()
    system.worker()
    system.settles(open_one)
    assert told(call("effects", "erase", "--id", open_one, "--execute", "--reason", "17", "--json"), 0)["erased"]
    assert call(*words).returncode == 3
    assert told(call("effects", "erase", "--id", paid, "--dry-run", "--json"), 3)["erased_before"]
    assert call("effects", "erase", "--id", paid, "--dry-run", "--execute", "--reason", "x").returncode == 2
    assert holding(system, door, valkey_server) == set()
    repeated(door, paid)
    assert system.charged(paid) == 1
