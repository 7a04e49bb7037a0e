"""A machine that knows nothing but the OpenAPI document finds no answer that the document does not promise.

It sends what the document allows (which must be taken), what it forbids (which must be refused), leaves things out,
tries other methods, and reads every answer, header and problem against its schema: a real server, a real database.
So does one whose key may do little, and so do two tenants at once, each of which tries to read what the other has made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.engine import keys
from tests.flow.doors import Door, served
from tests.flow.test_roles import Logins, logins
from tests.server import ROOT

__all__ = ["logins"]

CONFIG = Path(__file__).with_name("schemathesis.toml")
TENANTS = ("shop", "rival")
# The machine begins a story with what looks as if it needed nothing; a charge names a customer, so it never begins with
# one unless nothing else is there. What it makes here it reads by the document's links.
STORIES = [
    word
    for name in ("charge", "email", "refund", "capture", "cancel")
    for word in ("--include-operation-id", f"create_{name}")
] + ["--include-operation-id", "get_effect", "--include-operation-id", "list_events"]
# Rows that belong together and are not of one tenant.
_ACROSS = """
select 'effect', e.id from effects e join effects c on c.id = e.concerns where c.tenant <> e.tenant
union all
select 'operation', o.id from operations o join operation_items i on i.operation_id = o.id
    join effects e on e.id = i.effect_id where o.tenant is distinct from e.tenant
"""


@pytest.fixture
def door(database: str) -> Iterator[Door]:
    """The API as it stands in production: it asks for keys."""
    with served(database, api_auth="keys", stripe_webhook_secret="whsec_of_the_tests") as running:
        yield running


@pytest.fixture
def token(database: str) -> str:
    assert database
    return key_of("shop")


def key_of(tenant: str, *scopes: str) -> str:
    """A key of this tenant, for everything unless it is said for what."""
    return keys.create(tenant=tenant, name="st", scopes=sorted(scopes or keys.SCOPES), actor="test", door="cli").secret


def look(door: Door, token: str, folder: Path, seed: int, *options: str, config: Path = CONFIG) -> None:
    """`token`: empty when `config` says who asks."""
    url = f"http://{door.host}:{door.port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", url, "--no-color"]
    who = ["--header", f"Authorization: Bearer {token}"] if token else []
    found = subprocess.run(
        [*command, "--seed", str(seed), "--checks", "all", *who, *options],
        cwd=folder,  # it keeps notes beside itself
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    print(found.stdout[found.stdout.rfind("= SUMMARY") :])
    assert found.returncode == 0, found.stdout[found.stdout.find("= FAILURES") :] + found.stderr
    assert '"request_bug"' not in "".join(door.lines)


def test_every_answer_is_one_that_the_document_promises(door: Door, token: str, tmp_path: Path, seed: int) -> None:
    look(door, token, tmp_path, seed, "--phases", "examples,fuzzing", "--max-examples", "3")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing", "stateful"])
def test_nor_after_thousands_of_requests(door: Door, token: str, tmp_path: Path, seed: int, phases: str) -> None:
    look(door, token, tmp_path, seed, "--phases", phases, "--max-examples", "100")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nor_of_what_it_has_made_itself(door: Door, token: str, tmp_path: Path, seed: int) -> None:
    look(door, token, tmp_path, seed, "--phases", "stateful", *STORIES, "--max-examples", "100")
    assert _rows(door, "select 1 from effects limit 1"), "it has made nothing"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scope", ["effects:read", "emails:write"])
def test_nor_with_a_key_that_may_do_one_thing(door: Door, tmp_path: Path, seed: int, scope: str) -> None:
    few = key_of("shop", scope)
    look(door, few, tmp_path, seed, "--phases", "examples,coverage,fuzzing", "--max-examples", "20")
    kinds = _rows(door, "select distinct kind from effects")
    assert kinds == ([("email",)] if scope == "emails:write" else []), f"a key for {scope} has made {kinds}"
    assert _rows(door, "select 1 from operations limit 1") == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stories", [False, True], ids=["requests", "stories"])
def test_nor_do_two_tenants_see_anything_of_each_other(
    logins: Logins, tmp_path: Path, seed: int, stories: bool
) -> None:
    """In the database the API is nobody but its own role."""
    who = tmp_path / "tenants.json"
    header = "Authorization"
    fixed = {t: [{"name": header, "value": f"Bearer {key_of(t)}"}] for t in TENANTS}
    who.write_text(json.dumps({"auth": [{"name": t, "fixedHeaders": fixed[t]} for t in TENANTS]}))
    config = tmp_path / "tenants.toml"
    peers = json.dumps(TENANTS)
    config.write_text(f'{CONFIG.read_text()}\n[auth.wfc]\npath = "{who}"\npeers = {peers}\n')
    with served(logins.urls["api"], api_auth="keys", stripe_webhook_secret="whsec_of_the_tests") as door:
        how = ["stateful", *STORIES] if stories else ["examples,fuzzing"]
        look(door, "", tmp_path, seed, "--phases", *how, "--max-examples", "50", config=config)
    with psycopg.connect(logins.owner) as db:
        assert db.execute(_ACROSS).fetchall() == []
        made = db.execute("select tenant from effects group by 1 order by 1").fetchall()
    assert made == [("shop",)], "nobody made anything that another could have read"


def _rows(door: Door, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(door.database_url) as db:
        return list(db.execute(query).fetchall())
