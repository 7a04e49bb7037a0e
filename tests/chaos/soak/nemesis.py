"""What goes wrong in a round: one fault every few seconds, drawn by the seed with the weights below.

A fault that lasts undoes itself after its seconds; `heal` undoes all of them at once.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import psutil
import psycopg

from tests.chaos.soak.installation import Installation
from tests.flow.wires import ValkeyWire, body, task

GAP_SECONDS = (0.2, 2.5)
# The lease of a round is three seconds: most pauses outlast it, some do not.
PAUSE_SECONDS = (1.0, 6.0)
DOWN_SECONDS = (0.3, 3.0)
COPIES = 25
LANES = {"charge": "charge", "refund": "charge", "capture": "charge", "cancel": "charge", "email": "email"}
_GOOD_WEBHOOKS = {"duplicate": 1, "reorder": 1, "delay": 0.0, "drop": 0}
_BAD_WEBHOOKS = ({"duplicate": 4}, {"reorder": 5}, {"delay": 3.0}, {"drop": 2}, {"drop": ["*"]})
_STRIPE_FAULTS = ("close_before", "close_after", "status_429", "conflict_409", "status_502_html", "truncate", "drip")
# A 500 stored under the key of a create is replayed for as long as the key lives (a day): no round waits for that.
_CONFIRM_FAULTS = (*_STRIPE_FAULTS, "status_500_stored_after")
WEIGHTS = {
    "kill_worker": 9, "kill_child": 4, "pause_worker": 5, "end_worker": 2, "kill_relay": 4, "pause_relay": 2,
    "kill_api": 3, "kill_beat": 1, "kill_client": 3, "lose_messages": 3, "freeze_broker": 2, "restart_broker": 2,
    "repeat_messages": 3, "cut_database": 3, "cut_one_connection": 3, "crash_database": 2, "stripe_fault": 8,
    "mail_fault": 4, "crash_provider": 3, "provider_down": 2, "bad_webhooks": 2, "replay": 3,
}  # fmt: skip


class Nemesis:
    """Strikes one installation; `struck` counts what came to pass."""

    def __init__(self, house: Installation, choose: random.Random) -> None:
        self.struck: Counter[str] = Counter()
        self.kills = 0
        self._house = house
        self._choose = choose
        self._lasting: list[tuple[float, Callable[[], None]]] = []

    def strike(self) -> str:
        """One fault; its name, or an empty string if it does not exist here (a prefork child where there is none)."""
        name = self._choose.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if not getattr(self, f"_{name}")():
            return ""
        self.struck[name] += 1
        return name

    def undo_what_is_over(self, *, all_of_it: bool = False) -> None:
        """Wake, start and mend whose time has come."""
        for item in list(self._lasting):
            if all_of_it or monotonic() >= item[0]:
                self._lasting.remove(item)
                item[1]()

    def heal(self) -> None:
        """Nothing is broken any more."""
        self.undo_what_is_over(all_of_it=True)
        for fake in (self._house.system.stripe, self._house.system.mail):
            fake.reset()
        self._webhooks(_GOOD_WEBHOOKS)

    # --- processes -----------------------------------------------------------------------------------------------

    def _kill_worker(self) -> bool:
        return self._kill("worker")

    def _kill_relay(self) -> bool:
        return self._kill("relay")

    def _kill_api(self) -> bool:
        return self._kill("api")

    def _kill_beat(self) -> bool:
        return self._kill("beat")

    def _kill_client(self) -> bool:
        return self._kill("client")

    def _kill(self, role: str) -> bool:
        """SIGKILL to the process alone: its children go on for a moment, as after the kernel's own kill."""
        self._house.programs[self._one(role)].kill()
        self.kills += 1
        return True

    def _kill_child(self) -> bool:
        """A prefork child, alone: Celery starts another one."""
        for name in self._shuffled("worker"):
            program = self._house.programs[name]
            with suppress(psutil.Error):
                children = [x for x in psutil.Process(program.pid).children() if x.is_running()]
                if program.name.endswith("prefork") and children:
                    self._choose.choice(children).kill()
                    self.kills += 1
                    return True
        return False

    def _end_worker(self) -> bool:
        """A polite stop, while the others go on."""
        program = self._house.programs[self._one("worker")]
        program.signal(signal.SIGTERM)
        return True

    def _pause_worker(self) -> bool:
        return self._pause("worker")

    def _pause_relay(self) -> bool:
        return self._pause("relay")

    def _pause(self, role: str) -> bool:
        program = self._house.programs[self._one(role)]
        program.signal(signal.SIGSTOP)
        self._later(PAUSE_SECONDS, lambda: program.signal(signal.SIGCONT))
        return True

    # --- the broker ----------------------------------------------------------------------------------------------

    def _lose_messages(self) -> bool:
        self._house.system.wire.empty()
        return True

    def _freeze_broker(self) -> bool:
        wire = self._house.system.wire
        if not isinstance(wire, ValkeyWire):
            return False
        frozen = wire.frozen()
        frozen.__enter__()
        self._later(PAUSE_SECONDS, lambda: frozen.__exit__(None, None, None) and None)
        return True

    def _restart_broker(self) -> bool:
        """Without persistence: what it had is gone."""
        wire = self._house.system.wire
        if not isinstance(wire, ValkeyWire) or self._lasting:
            return False
        wire.server.stop()
        self._later(DOWN_SECONDS, wire.server.start)
        return True

    def _repeat_messages(self) -> bool:
        """Copies of messages of now and long ago, many times, in any order."""
        try:
            rows = self._house.system.sql("select id, kind from effects order by random() limit 20")
            for row in rows * COPIES if len(rows) < 3 else rows:
                self._house.system.wire.put(LANES[row["kind"]], task(row["kind"]), body(effect_ids=[str(row["id"])]))
        except (OSError, psycopg.Error):
            return False
        return bool(rows)

    # --- the database --------------------------------------------------------------------------------------------

    def _cut_database(self) -> bool:
        return self._terminate("")

    def _cut_one_connection(self) -> bool:
        return self._terminate(" order by random() limit 1")

    def _terminate(self, which: str) -> bool:
        query = (
            "select pg_terminate_backend(pid) from (select pid from pg_stat_activity where datname = current_database()"
            f" and pid <> pg_backend_pid() and backend_type = 'client backend'{which}) chosen"
        )
        with suppress(psycopg.Error):
            return bool(self._house.system.sql(query))
        return False

    def _crash_database(self) -> bool:
        """SIGQUIT: Postgres stops at once without a checkpoint, and recovers from its log when it is started."""
        if self._lasting:
            return False
        cluster = self._house.ground.postgres
        cluster.stop(signal.SIGQUIT)
        self._later(DOWN_SECONDS, lambda: cluster.start(cluster.port) and None)
        return True

    # --- the providers -------------------------------------------------------------------------------------------

    def _stripe_fault(self) -> bool:
        route = self._choose.choice(["create", "confirm", "retrieve", "refund"])
        action = self._choose.choice(_CONFIRM_FAULTS if route == "confirm" else _STRIPE_FAULTS)
        return self._fault(self._house.system.stripe, action, route)

    def _mail_fault(self) -> bool:
        return self._fault(self._house.system.mail, self._choose.choice(_STRIPE_FAULTS), "emails")

    def _fault(self, fake: object, action: str, route: str) -> bool:
        with suppress(OSError):
            fake.fault(action, route=route, times=self._choose.randint(1, 3))  # type: ignore[attr-defined]
            return True
        return False

    def _crash_provider(self) -> bool:
        fake = self._choose.choice([self._house.system.stripe, self._house.system.mail])
        fake.kill()
        fake.start()
        return True

    def _provider_down(self) -> bool:
        if self._lasting:
            return False
        fake = self._choose.choice([self._house.system.stripe, self._house.system.mail])
        fake.kill()
        self._later(DOWN_SECONDS, fake.start)
        return True

    def _bad_webhooks(self) -> bool:
        """Doubled, out of order, late, every second one lost, or all of them."""
        with suppress(OSError):
            self._webhooks({**_GOOD_WEBHOOKS, **self._choose.choice(_BAD_WEBHOOKS)})
            return True
        return False

    def _webhooks(self, knobs: dict[str, Any]) -> None:
        for ear in self._house.ears:
            self._house.system.stripe.admin("webhooks", {"id": ear, **knobs})

    # --- people --------------------------------------------------------------------------------------------------

    def _replay(self) -> bool:
        """Somebody on call replays whatever is open at that moment, in the middle of it."""
        rows = []
        with suppress(psycopg.Error):
            rows = self._house.system.sql("select effect_id from outbox order by random() limit 20")
        ids = [word for row in rows for word in ("--id", str(row["effect_id"]))]
        if ids:
            words = [
                "service",
                "outbox",
                "replay",
                *ids,
                "--reason",
                "soak",
                "--execute",
                "--yes",
                "--no-wait",
                "--force-replays",
            ]
            self._house.system.start("caller-replay", words)
        return bool(ids)

    # --- drawing -------------------------------------------------------------------------------------------------

    def _one(self, role: str) -> str:
        return self._shuffled(role)[0]

    def _shuffled(self, role: str) -> list[str]:
        names = [name for name in self._house.programs if name.startswith(role)]
        return self._choose.sample(names, len(names))

    def _later(self, seconds: tuple[float, float], undo: Callable[[], None]) -> None:
        self._lasting.append((monotonic() + self._choose.uniform(*seconds), undo))
