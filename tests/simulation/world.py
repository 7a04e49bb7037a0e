"""One seed: what is asked for, what goes wrong, and everybody who acts, from the first commit until all is at rest."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from math import inf
from random import Random
from typing import Any

from service.core.effect import Policy, Ready
from service.core.errors import DedupeConflict, ValidationError
from service.engine import hold, recover
from service.providers import deadline
from service.providers.mail import message, smtp
from service.providers.mail.resend import ResendMail
from service.providers.stripe import attempt as stripe_attempt
from service.providers.stripe import leftovers, look_ups
from service.providers.stripe.authorisations import StripeCancels, StripeCaptures
from service.providers.stripe.charges import StripeCharges
from service.providers.stripe.refunds import StripeRefunds
from tests.model.decisions import FINAL
from tests.simulation import actors, invariants, restore
from tests.simulation import nemesis as n
from tests.simulation.books import Books
from tests.simulation.database import Broken, Database, Row
from tests.simulation.hub import Fibre, Hub, Killed, Process
from tests.simulation.nemesis import DAY, HOUR, Hits, Nemesis
from tests.simulation.wires import ResendSide, SmtpSide, StripeSide, Wire

SENDER = "us@shop.test"
END_SECONDS = 40 * DAY
EVENTS_MAX = 60_000
_clock = Hub()
_parseaddr = cache(message.parseaddr)  # there are a dozen addresses


def _monotonic() -> float:
    """The running process's clock, which drifts."""
    running = _clock.running
    return _clock.now * running.process.rate if running else _clock.now


class _Clock:
    """Stands for the module `time` where the product reads it."""

    monotonic = staticmethod(_monotonic)

    @staticmethod
    def time() -> float:
        return _clock.wall()


def _nobody(_: Any) -> None:
    """Listens to nothing any more."""


STORE = restore.Store()


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
        (hold, "monotonic", _monotonic),
        (stripe_attempt, "monotonic", _monotonic),
        (deadline, "time", _Clock),
        (look_ups, "time", _Clock),
        (smtp, "Session", SmtpSide),
        (smtp, "render", lambda *_: b""),
        (message, "parseaddr", _parseaddr),
        (leftovers, "_UUID", re.compile("")),
        (recover, "log", log),
        (recover, "transaction", STORE.connected),
        (recover, "statement", STORE.connected),
        (recover, "standing", STORE.standing),
        (recover, "stripe_api", lambda _: _STRIPE),
        *((recover, name, STORE) for name in ("incarnation", "recovery", "orphans", "breaks")),
        (actors.execute, "log", log),
        (actors.verify, "log", log),
    ]


def _providers(mail: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"livemode": False, "deadline_seconds": actors.DEADLINE_SECONDS}
    api: Any = _STRIPE
    return {
        "charge": StripeCharges(api, **own),
        "refund": StripeRefunds(api, **own),
        "capture": StripeCaptures(api, **own),
        "cancel": StripeCancels(api, **own),
        "email": mail,
    }


def _resend() -> ResendMail:
    mail: Any = ResendMail("http://127.0.0.1:1", "key", sender=SENDER, deadline_seconds=20.0)
    mail._wire = ResendSide()
    return mail  # type: ignore[no-any-return]


# One of each for all seeds, as in a worker's process; each world plugs its wires in.
_STRIPE = StripeSide()
_WITH_RESEND = _providers(_resend())
_WITH_SMTP = _providers(smtp.SmtpMail(smtp.Server("mail", 25), sender=SENDER, deadline_seconds=20.0))


class World:
    """Everything there is in one seed. `off` names the guard that is taken out, empty for none."""

    def __init__(
        self,
        seed: int,
        *,
        off: str = "",
        tracing: bool = False,
        hits: Hits | None = None,
        without: frozenset[int] = frozenset(),
    ) -> None:
        global _clock  # noqa: PLW0603 - the one clock that the product's modules read
        self.seed, self.off = seed, off
        self.random = random = Random(seed)
        self.hits: Hits = defaultdict(int) if hits is None else hits
        self.nemesis = Nemesis(random, self.hits)
        self.nemesis.without = without
        self.options = self.nemesis.told()
        self.hub = _clock = Hub()
        self.database = Database(self.hub, self.nemesis, off, self.due)
        if tracing:
            trace = self.database.trace = []
            self.nemesis.tell = lambda kind: trace.append(f"{self.hub.now:12.1f}  ** {kind}")
        self.books = Books(self.hub, self.nemesis, random, self.database)
        self.down_until = self.broker_until = 0.0
        self.look_at = inf
        self.pauses = False
        self.persons_left = 3
        self.database.stuck = self._stuck
        self.sent: Any = None
        self.banks: dict[str, str] = {}
        self.hooks = random.random() < 0.5
        self.books.tell = self._tell
        self.api = Process("api")
        self.workers = [self._process(i) for i in range(random.choice((1, 1, 1, 2, 2, 3, 4, 5)))]
        self._providers()
        self._ask()
        STORE.world = self
        restore.may_come(self)

    def _process(self, number: int) -> Process:
        random = self.random
        skewed = random.random() < 0.3
        rate = random.uniform(0.995, 1.005) if skewed else 1.0
        return Process(f"worker {number}", rate=rate, skew_seconds=random.uniform(-1800, 1800) if skewed else 0.0)

    def _providers(self) -> None:
        self.wire = wire = Wire(self)
        _STRIPE.plug(wire)
        ResendSide.wire = SmtpSide.wire = wire
        self.keyed = self.random.random() < 0.5
        self.providers = _WITH_RESEND if self.keyed else _WITH_SMTP

    # --- what is asked for -------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        random = self.random
        for number in range(random.choice((1, 1, 1, 2, 2, 3))):
            at = 0.0 if random.random() < 0.5 else random.uniform(0.0, 300.0)
            orders = [self._letter(f"{number}m", f"{number}m")] if random.random() < 0.25 else self._charge(number)
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

    def _letter(self, id_: str, name: str) -> Row:
        row = Row(id_, "email", {"to": f"{id_}@home.test", "subject": "s", "text": "t"}, 0.0)
        row.dedupe_key = name
        row.policy = self.random.choice((Policy.AT_MOST_ONCE, Policy.AT_LEAST_ONCE))
        if not self.keyed and row.policy is Policy.AT_LEAST_ONCE:
            # The books count by dedupe key (I1), and in a later life that is not the id: what its policy allows a
            # receipt has to stand under its key, or the copies that it flags as possible duplicates look like a breach.
            self.books.limits.setdefault(name, smtp.SENDS_MAX)
        return row

    def _commit(self, orders: list[Row]) -> None:
        nemesis = self.nemesis
        for row in orders:
            row.available_at = row.created_at = self.hub.now
            self.database.accept(row)
            if nemesis.fires(n.REPEATED):
                self.hub.at(nemesis.span(), self._repeat, row)
            if nemesis.fires(n.CONTRADICTS):
                self.hub.at(nemesis.span(), self._contradict, row)

    def _stuck(self, row: Row) -> None:
        """Somebody will look at it, at once or days later, and perhaps two at the same time."""
        if self.persons_left:
            self.persons_left -= 1
            random = self.random
            wait = 45 * HOUR * random.random() ** 3
            for _ in range(2 if random.random() < 0.3 else 1):
                self.hub.at(wait, self._person, row)

    def _person(self, row: Row) -> None:
        if row.state in ("parked", "unknown"):
            self.hub.spawn(self.api, actors.person, self, row)

    def again(self, row: Row, request: dict[str, Any]) -> Row:
        """The same key once more: another effect, if it is let in."""
        again = Row(f"{row.id}{(self.database.lives + 1) * chr(39)}", row.kind, request, self.hub.now)
        again.dedupe_key, again.concerns, again.ready_when = row.dedupe_key, row.concerns, row.ready_when
        return again

    def _repeat(self, row: Row) -> None:
        self.accept_again(self.again(row, dict(row.request)))

    def _contradict(self, row: Row) -> None:
        other = {"subject": "another"} if row.kind == "email" else {"amount": row.request["amount"] - 1}
        self.accept_again(self.again(row, {**row.request, **other}))

    def accept_again(self, again: Row) -> None:
        """What is let in under a key is what was asked for under it first, or it is refused (I4)."""
        try:
            taken = self.database.accept(again)
        except DedupeConflict:
            self.hits["refused: another request under the same key"] += 1
            return
        except ValidationError:
            self.hits["refused: acts upon what is forgotten"] += 1
            return
        self.hits["accepted before: the same effect"] += taken is not again
        if taken.request != again.request:
            raise Broken(f"I4 {taken.id} was asked for with {again.request} and stands for {taken.request}")

    def follow_up(self, row: Row) -> Row | None:
        """A charge's receipt, accepted in the commit that settles it."""
        if not row.receipt or self.off == "follow_up_in_commit":
            return None
        receipt = self._letter(f"{row.id}r{'+' * self.database.lives}", f"{row.dedupe_key}r")
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
        open_ = [row for row in self.database.rows.values() if row.road not in ("gone", "parked")]
        if not open_ or all(invariants.rests(self, row) for row in open_) or not actors.relay_looks(self):
            return
        coming = [row.available_at for row in open_ if row.road != "gone"]
        if coming:
            self.due(max(0.0, min(coming) - self.hub.now))

    def deliver(self, ids: Sequence[str]) -> None:
        """The broker hands a message to a worker, when there is one."""
        if self.hub.now < self.down_until:
            self.hub.at(self.down_until - self.hub.now + self.random.random(), self.deliver, ids)
            return
        worker = self.workers[int(self.random.random() * len(self.workers))]
        self.hub.begin(worker, actors.run_message, self, ids)

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

    def paused_until(self) -> float:
        """When the first worker is awake again."""
        return min([worker.frozen_until for worker in self.workers]) if self.pauses else 0.0

    def point(self) -> None:
        """Between any two steps of a process it may die or be paused, alone or with everything else. Raises Killed."""
        nemesis = self.nemesis
        for kind in nemesis.strikes:
            if nemesis.random() < nemesis.chance[kind]:
                self._strike(kind)
                return

    def _strike(self, kind: str) -> None:
        nemesis, hub = self.nemesis, self.hub
        running = hub.running
        if running is None or running.process is self.api:
            return
        if not nemesis.fired(kind):
            return
        if kind == n.PAUSE:
            running.process.frozen_until = hub.now + nemesis.span()
            self.pauses = True
            hub.sleep(0.0)
            return
        if kind == n.BLACKOUT:
            self.down_until = hub.now + nemesis.span()
        for worker in list(self.workers) if kind == n.BLACKOUT else [running.process]:
            self._dies(worker)
        raise Killed

    def dies(self) -> bool:
        """Whether the running process dies here; another one takes its place."""
        if n.CRASH not in self.nemesis.chance:
            return False
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
            if not self.hub.run(END_SECONDS, EVENTS_MAX):
                raise Broken("I10 it does not come to rest")
            invariants.at_rest(self)
        finally:
            self.hub.end()

    def close(self) -> None:
        """Let go of each other, so that nobody has to look for cycles."""
        self.database.due = self.database.stuck = self.books.tell = _nobody
        del self.wire.world


def fibres() -> int:
    """How many greenlets there are: they are used again."""
    return len(Fibre.idle)


__all__ = ["FINAL", "World", "fibres", "virtual"]
