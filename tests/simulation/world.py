"""One seed: what is asked for, what goes wrong, and everybody who acts, from the first commit until all is at rest."""

from __future__ import annotations

from collections import Counter
from math import inf
from random import Random
from typing import Any

from service.core.effect import Policy, Ready
from service.engine import hold
from service.providers import deadline
from service.providers.mail import smtp
from service.providers.mail.resend import ResendMail
from service.providers.stripe import attempt as stripe_attempt
from service.providers.stripe import look_ups
from service.providers.stripe.authorisations import StripeCancels, StripeCaptures
from service.providers.stripe.charges import StripeCharges
from service.providers.stripe.refunds import StripeRefunds
from tests.model.decisions import FINAL
from tests.simulation import actors, invariants
from tests.simulation import nemesis as n
from tests.simulation.books import Books
from tests.simulation.database import Broken, Database, Row
from tests.simulation.hub import Fibre, Hub, Killed, Process
from tests.simulation.nemesis import DAY, HOUR, Nemesis
from tests.simulation.wires import ResendSide, SmtpSide, StripeSide, Wire

END_SECONDS = 40 * DAY
EVENTS_MAX = 60_000
_clock = Hub()


class _Clock:
    """Stands for the module `time` where the product reads it."""

    @staticmethod
    def monotonic() -> float:
        return _clock.monotonic()

    @staticmethod
    def time() -> float:
        return _clock.wall()


class _Log:
    """Logs nothing; a bug that the product would survive as `unknown` is a bug here."""

    def exception(self, *_: object, **__: object) -> None:
        raise  # noqa: PLE0704 - called while the exception is handled

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


def virtual() -> list[tuple[Any, str, Any]]:
    """What has to stand in the product's modules so that time, sockets and letters are ours."""
    log = _Log()
    return [
        (hold, "monotonic", _Clock.monotonic),
        (stripe_attempt, "monotonic", _Clock.monotonic),
        (deadline, "time", _Clock),
        (look_ups, "time", _Clock),
        (smtp, "Session", SmtpSide),
        (smtp, "render", lambda *_: b""),
        (actors.execute, "log", log),
        (actors.verify, "log", log),
    ]


class World:
    """Everything there is in one seed. `off` names the guard that is taken out, empty for none."""

    def __init__(self, seed: int, *, off: str = "", tracing: bool = False) -> None:
        global _clock  # noqa: PLW0603 - the one clock that the product's modules read
        self.seed, self.off = seed, off
        self.random = random = Random(seed)
        self.hits: Counter[str] = Counter()
        self.nemesis = Nemesis(random, self.hits)
        self.options = self.nemesis.told()
        self.hub = _clock = Hub()
        self.database = Database(self.hub, self.nemesis, off, self.due)
        if tracing:
            self.database.trace = []
        self.books = Books(self.hub, self.nemesis, random, self.database)
        self.down_until = self.broker_until = 0.0
        self.look_at = inf
        self.sent: Any = None
        self.banks: dict[str, str] = {}
        self.hooks = random.random() < 0.5
        self.books.tell = self._tell
        self.api = Process("api")
        self.workers = [self._process(i) for i in range(random.choice((1, 1, 1, 2, 2, 3, 4, 5)))]
        self._providers()
        self._ask()

    def _process(self, number: int) -> Process:
        random = self.random
        skewed = random.random() < 0.3
        rate = random.uniform(0.995, 1.005) if skewed else 1.0
        return Process(f"worker {number}", rate=rate, skew_seconds=random.uniform(-1800, 1800) if skewed else 0.0)

    def _providers(self) -> None:
        wire = Wire(self)
        api: Any = StripeSide(wire)
        own = {"livemode": False, "deadline_seconds": actors.DEADLINE_SECONDS}
        SmtpSide.wire = wire
        self.keyed = self.random.random() < 0.5
        sender = "us@shop.test"
        mail: Any
        if self.keyed:
            mail = ResendMail("http://127.0.0.1:1", "key", sender=sender, deadline_seconds=20.0)
            mail._wire = ResendSide(wire)
        else:
            mail = smtp.SmtpMail(smtp.Server("mail", 25), sender=sender, deadline_seconds=20.0)
        self.providers: dict[str, Any] = {
            "charge": StripeCharges(api, **own),
            "refund": StripeRefunds(api, **own),
            "capture": StripeCaptures(api, **own),
            "cancel": StripeCancels(api, **own),
            "email": mail,
        }

    # --- what is asked for -------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        random = self.random
        for number in range(random.choice((1, 1, 1, 2, 2, 3))):
            at = 0.0 if random.random() < 0.5 else random.uniform(0.0, 300.0)
            orders = [self._letter(f"{number}m")] if random.random() < 0.25 else self._charge(number)
            self.hub.at(at, self._commit, orders)

    def _charge(self, number: int) -> list[Row]:
        """A charge, and perhaps what acts upon it, accepted in the same transaction."""
        random, id_ = self.random, f"{number}a"
        request: dict[str, Any] = {"amount": 4000, "currency": "eur", "payment_method": "pm"}
        if random.random() < 0.4:
            request["customer"] = f"cus_{number}"
        row = Row(id_, "charge", request, 0.0)
        row.receipt = random.random() < 0.3
        self.banks[id_] = random.choices(("pays", "declines", "thinks", "thinks, then declines"), (70, 10, 15, 5))[0]
        orders = [row]
        if random.random() < 0.2:
            request["capture_method"] = "manual"
            kind = random.choice(("capture", "capture", "cancel"))
            orders.append(self._upon(f"{number}b", kind, row))
        elif random.random() < 0.6:
            orders += [self._upon(f"{number}{letter}", "refund", row) for letter in "cd"[: random.choice((1, 1, 2))]]
        return orders

    def _upon(self, id_: str, kind: str, charge: Row) -> Row:
        amount = 1000 if kind == "refund" else 4000
        row = Row(id_, kind, {"amount": amount, "currency": "eur", "charge": charge.id}, 0.0)
        row.concerns = charge.id
        row.ready_when = Ready.SETTLED if kind == "refund" else Ready.AUTHORISED
        row.policy = Policy.AT_LEAST_ONCE if kind == "refund" and self.random.random() < 0.3 else Policy.AT_MOST_ONCE
        self.banks[id_] = "thinks" if self.random.random() < 0.2 else "pays"
        return row

    def _letter(self, id_: str) -> Row:
        row = Row(id_, "email", {"to": f"{id_}@home.test", "subject": "s", "text": "t"}, 0.0)
        row.policy = self.random.choice((Policy.AT_MOST_ONCE, Policy.AT_LEAST_ONCE))
        if not self.keyed and row.policy is Policy.AT_LEAST_ONCE:
            self.books.limits[id_] = smtp.SENDS_MAX
        return row

    def _commit(self, orders: list[Row]) -> None:
        nemesis = self.nemesis
        for row in orders:
            row.available_at = row.created_at = self.hub.now
            self.database.accept(row)
            if nemesis.fires(n.REPEATED):
                self.hub.at(nemesis.span(), self._repeat, row)
            if nemesis.persons:
                for _ in range(2):
                    self.hub.at(self.random.uniform(60.0, 45 * HOUR), self._person, row)

    def _person(self, row: Row) -> None:
        if row.state in ("parked", "unknown"):
            self.hub.spawn(self.api, actors.person, self, row)

    def _repeat(self, row: Row) -> None:
        again = Row(f"{row.id}'", row.kind, row.request, self.hub.now)
        again.dedupe_key, again.concerns, again.ready_when = row.dedupe_key, row.concerns, row.ready_when
        self.books.limits[again.id] = 0
        self.database.accept(again)

    def follow_up(self, row: Row) -> Row | None:
        """A charge's receipt, accepted in the commit that settles it."""
        if not row.receipt or self.off == "follow_up_in_commit":
            return None
        receipt = self._letter(f"{row.id}r")
        receipt.caused_by, receipt.available_at = row.id, self.hub.now
        return receipt

    # --- what others call --------------------------------------------------------------------------------------------

    def due(self, seconds: float) -> None:
        """A relay looks then, unless it looks before."""
        at = self.hub.now + seconds
        if at < self.look_at:
            self.look_at = at
            self.hub.at(seconds + 0.01, self._look, at)

    def _look(self, at: float) -> None:
        if at != self.look_at:
            return
        self.look_at = inf
        if all(invariants.rests(self, row) for row in self.database.rows.values()):
            return
        if not actors.relay_looks(self):
            return
        coming = [r.available_at for r in self.database.rows.values() if r.road in ("fresh", "later", "published")]
        if coming:
            self.due(max(0.0, min(coming) - self.hub.now))

    def deliver(self, message: tuple[str, tuple[str, ...]]) -> None:
        """The broker hands a message to a worker, when there is one."""
        if self.hub.now < self.down_until:
            self.hub.at(self.down_until - self.hub.now + self.random.random(), self.deliver, message)
            return
        self.hub.spawn(self.random.choice(self.workers), actors.run_message, self, *message)

    def record(self, attempt: Any, progress: Any) -> bool:
        """What `Executor` gives a hold to write recovery points with."""
        self.point()
        return bool(self.database.commit(lambda: self.database.record(attempt, dict(progress))))

    def _tell(self, intent: str) -> None:
        if not self.hooks:
            return
        for _ in range(2 if self.nemesis.fires(n.HOOK_DOUBLED) else 1):
            delay = self.nemesis.span() if self.nemesis.fires(n.HOOK_LATE) else self.random.uniform(0.5, 5.0)
            self.hub.at(delay, lambda _: actors.webhook(self, intent))

    def point(self) -> None:
        """Between any two steps of a process it may die or be paused, alone or with everything else. Raises Killed."""
        nemesis, hub = self.nemesis, self.hub
        if not nemesis.left or not nemesis.strikes or hub.running is None:
            return
        process = hub.running.process
        if process is self.api:
            return
        if nemesis.fires(n.BLACKOUT):
            self.down_until = hub.now + nemesis.span()
            for worker in list(self.workers):
                self._dies(worker)
            raise Killed
        if self.dies():
            raise Killed
        if nemesis.fires(n.PAUSE):
            process.frozen_until = hub.now + nemesis.span()
            hub.sleep(0.0)

    def dies(self) -> bool:
        """Whether the running process dies here; another one takes its place."""
        process = self.hub.running.process  # type: ignore[union-attr]
        if process is self.api or not self.nemesis.fires(n.CRASH):
            return False
        self._dies(process)
        return True

    def _dies(self, process: Process) -> None:
        process.dead = True
        if process in self.workers:
            self.workers[self.workers.index(process)] = self._process(len(self.workers))

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until everything is at rest. Raises Broken."""
        try:
            self._run()
        finally:
            self.hub.end()

    def _run(self) -> None:
        hub = self.hub
        if not hub.run(END_SECONDS, EVENTS_MAX):
            raise Broken("I10 it does not come to rest")
        invariants.at_rest(self)


def fibres() -> int:
    """How many greenlets there are: they are used again."""
    return len(Fibre.idle)


__all__ = ["FINAL", "World", "fibres", "virtual"]
