"""The doors as targets, and the first of them: the API, under a client that repeats its key until it is answered.

Relay and worker are alive all the while, so what a dead door has left behind is taken up as in any other minute. The
client knows what HTTP tells it: ok, fail, or nothing; then it repeats the same request under the same Idempotency-Key
until it has an answer (IETF draft "The Idempotency-Key HTTP Header Field", RFC 9110 section 9.2.2). replay_tool.py has
the other door.
"""

from __future__ import annotations

import http.client
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from tests.chaos.points.block import NEVER, Block, Mode
from tests.chaos.points.fixtures import Armoury, armed, arming
from tests.chaos.points.house import House, Run
from tests.chaos.points.subjects import SUBJECTS
from tests.contract.fake_servers import FakeServer
from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.wires import Wire

# What the doors import besides the worker's libraries, and modules of ours that keep no settings.
LIBRARIES = (
    "fastapi", "uvicorn", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on", "typer.rich_utils", "rich.table",
    "service.broker.app", "service.broker.publish", "service.cli.app", "service.engine.execute",
    "service.engine.relay", "service.engine.operations", "service.store.effects", "service.store.schema",
    "service.telemetry.logs",
)  # fmt: skip
QUIET_SECONDS = 0.06
ANSWER_SECONDS = 15.0
CHARGE = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "description": "Order 17"}
REFUND = {"amount": 1200, "currency": "eur"}
_keys = count(1)
# I7 in one snapshot: unsettled effects without a duty, duties without an unsettled effect.
_LOOSE_ENDS = """
select coalesce(e.id, o.effect_id)::text as id, e.state, o.road from effects e
    full join outbox o on o.effect_id = e.id
where e.id is null or (e.settled_at is null) <> (o.effect_id is not null)
"""


@pytest.fixture(scope="session")
def door_armoury(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armoury]:
    with arming(tmp_path_factory.mktemp("doors"), *LIBRARIES) as made:
        yield made


@pytest.fixture
def door_system(
    database: str, wire: Wire, stripe_fake: FakeServer, mail_fake: FakeServer, door_armoury: Armoury, tmp_path: Path
) -> Iterator[System]:
    """As `armed_system`, in a nursery that knows the doors' libraries."""
    yield from armed(System(database, wire, stripe_fake, mail_fake, door_armoury.nursery, tmp_path), door_armoury)


class Door(House):
    """A house whose target is a door. `found` counts the branches of recovery that were reached."""

    def __init__(self, system: System, block: Block, door: str) -> None:
        self.found: Counter[str] = Counter()
        super().__init__(system, block, SUBJECTS["charge"], target=door)

    @abstractmethod
    def hit(self, n: int, mode: Mode) -> Run:
        """One use of the door with a kill at its n-th call; back when everything of it is settled."""

    def _quiet(self) -> bool:
        calls, now = self._block.count, monotonic()
        if calls != self._last_count:
            self._last_count, self._last_call_at = calls, now
        return now > self._last_call_at + QUIET_SECONDS

    def _nothing_loose(self) -> None:
        """I7, the moment after a kill: whoever died, the effect and its duty were written together or not at all."""
        loose = self.system.sql(_LOOSE_ENDS)
        assert not loose, f"I7 {loose}"

    def _settled(self, *effect_ids: str) -> None:
        for effect_id in effect_ids:
            self._finish(effect_id)
            assert self.system.state(effect_id) == "succeeded", f"{effect_id} is {self.system.effect(effect_id)}"


# --- the API ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line of the client's history: what it asked, and what it knows of it."""

    key: str
    outcome: Literal["ok", "fail", "unknown"]
    status: int = 0
    effect_id: str = ""
    replayed: bool = False


@dataclass
class Client:
    """Asks over a connection of its own each time, and notes what it has heard."""

    port: int = 0
    history: list[Line] = field(default_factory=list)
    connected: Callable[[int], None] = lambda _port: None

    def ask(self, path: str, key: str, wish: Mapping[str, Any], wait_seconds: int = 0) -> Line:
        line = self._ask(path, key, wish, wait_seconds)
        self.history.append(line)
        return line

    def _ask(self, path: str, key: str, wish: Mapping[str, Any], wait_seconds: int) -> Line:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        headers = {"Idempotency-Key": f'"{key}"', "Content-Type": "application/json"}
        headers |= {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        try:
            connection.connect()
            self.connected(connection.sock.getsockname()[1])
            connection.request("POST", path, json.dumps(wish), headers)
            response = connection.getresponse()
            body = json.loads(response.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return Line(key, "unknown")
        finally:
            connection.close()
        if response.status == 503:  # nothing is known of it, and it may be sent again as it is
            return Line(key, "unknown", 503)
        told = str(body.get("id", "")), response.getheader("Idempotent-Replayed") == "true"
        return Line(key, "ok" if response.status < 300 else "fail", response.status, *told)


class Api(Door):
    """`counterfoil api`. `kind`: what is asked for; `cold`: of a process that nobody has asked for anything."""

    def __init__(
        self, system: System, block: Block, kind: Literal["charge", "refund"], *, cold: bool = False, wait: int = 0
    ) -> None:
        super().__init__(system, block, "api")
        self._kind = kind
        self._cold = cold
        self._wait = wait
        self.client = Client(connected=self._is_client)
        self.peers = dict(self.peers)
        self.programs["api"] = self._start("api")

    def renew(self) -> None:
        self._open_anew()
        if not self._cold:
            self.hit(NEVER, Mode.BEFORE)

    def hit(self, n: int, mode: Mode) -> Run:
        return self.killed(n, mode)

    def killed(self, n: int, mode: Mode, *again: tuple[int, Mode]) -> Run:
        """A kill at the n-th call; `again`: and one at the m-th of the API that gets the repetition, for each."""
        path, wish = self._request()
        key, begun = f"door:{next(_keys)}", monotonic()
        self.intents += 1
        if self._cold and self.intents > 1:
            self._open_anew()
        self._settled_down(self.programs["api"])
        self._block.arm(self.programs["api"].pid, n, mode)
        first = self.client.ask(path, key, wish, self._wait)
        self._heard_out()
        fired, seen = bool(self._block.fired), self._seen()
        known = self._known(key) if fired else first
        second = self._repeated(path, key, wish, again) if fired else ""
        answer = self.client.ask(path, key, wish)
        self._honest(known, first, answer)
        other = self.client.ask(path, key, {**wish, "amount": wish["amount"] + 1})
        assert other.status == 422, f"I4 {key} with another amount was answered {other}"
        self._settled(answer.effect_id)
        return Run(answer.effect_id, fired, seen, monotonic() - begun, second=second)

    def once(self) -> None:
        """The client's history against the database: one effect for each key, and it is the one that was named."""
        rows = self.system.sql("select dedupe_key, id::text, state from effects where dedupe_key like 'door:%%'")
        effect_of = {row["dedupe_key"]: row["id"] for row in rows}
        assert len(effect_of) == len(rows) == len({line.key for line in self.client.history})
        named = [line for line in self.client.history if line.effect_id]
        wrong = [line for line in named if effect_of[line.key] != line.effect_id]
        assert not wrong, f"another effect was named: {wrong}"

    # --- the parts of it ---------------------------------------------------------------------------------------

    def _request(self) -> tuple[str, dict[str, Any]]:
        if self._kind == "charge":
            return "/v1/charges", {**CHARGE}
        paid = self.system.charge()
        self._settled(paid)
        return "/v1/refunds", {**REFUND, "charge": paid}

    def _known(self, key: str) -> Line | None:
        """After the kill: what stands under the key already, and a new process at the door."""
        self._bury(self.programs["api"])
        self._nothing_loose()
        rows = self.system.sql("select id::text from effects where dedupe_key = %s", key)
        self.programs["api"] = self._start("api")
        self.found["accepted, then killed" if rows else "killed, nothing accepted"] += 1
        return Line(key, "ok", effect_id=rows[0]["id"]) if rows else None

    def _repeated(self, path: str, key: str, wish: Mapping[str, Any], again: tuple[tuple[int, Mode], ...]) -> str:
        """The same request until there is an answer; where the last of the kills came, empty if none did."""
        second = ""
        for m, mode in again:
            self._block.arm(self.programs["api"].pid, m, mode)
            line = self.client.ask(path, key, wish)
            self._heard_out()
            if self._block.fired:
                second = self._seen()[-1]
                self._known(key)
            else:
                assert line.outcome == "ok", f"{key} was answered {line}, and nobody was killed"
        line = self.client.ask(path, key, wish)
        assert line.outcome == "ok", f"{key} was answered {line} by a door that nobody disturbed"
        return second

    def _heard_out(self) -> None:
        """What it still does after its answer is among the points; what it does for the next request is not."""
        self.system.until(lambda: self._block.fired or self._quiet(), "the API is quiet")
        self._block.disarm()

    def _honest(self, known: Line | None, first: Line, answer: Line) -> None:
        """What was acknowledged exists, and every answer names the same effect; a repetition says that it is one."""
        assert (answer.outcome, answer.replayed) == ("ok", True), f"{answer} repeats an accepted key"
        told = [line for line in self.client.history if line.key == answer.key and line.effect_id]
        assert {line.effect_id for line in told} == {answer.effect_id}, f"several effects were named: {told}"
        assert [line.replayed for line in told].count(False) <= 1, f"made more than once: {told}"
        if known:
            assert known.effect_id == answer.effect_id
            assert all(line.replayed for line in told if line is not first), f"{told} after it was accepted"
        self.found["acknowledged, then killed"] += bool(self._block.fired and first.outcome == "ok")
        self.found["unknown to the client"] += first.outcome == "unknown"

    def _open_anew(self) -> None:
        self.programs["api"].kill()
        self.programs["api"] = self._start("api")

    def _start(self, name: str) -> Program:
        if name != "api":
            return super()._start(name)
        program = self.system.start("api", ["service", "api", "--port", "0"])
        program.expected_to_run = False
        self.system.until(lambda: program.lines("listening") or program.code is not None, "the API listens")
        self.client.port = urlsplit(str(program.lines("listening")[0]["url"])).port or 0
        return program

    def _is_client(self, port: int) -> None:
        self.peers = {number: name for number, name in self.peers.items() if name != "client"} | {port: "client"}
