"""A relay and a worker whose every connection passes a proxy: one effect for each point, and the oracle after each.

Nothing waits for a backoff: the moments in the database go back. A lease is waited for, unless no message is out,
because then nobody is at work: Valkey says so, and on RabbitMQ whoever is at work speaks with a database or a provider.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.chaos.wire.proxy import PREPARE, Fault, Link, Point, Watch, Way, proxied
from tests.flow.system import System

LINKS = ("worker-stripe", "worker-postgres", "relay-postgres", "worker-broker", "relay-broker")
SETTINGS = {"postgres": "DATABASE_URL", "broker": "BROKER_URL", "stripe": "STRIPE_API_BASE", "mail": "EMAIL_URL"}
PROVIDERS = ("stripe", "mail")
ONE_POINT = "COUNTERFOIL_TEST_POINT"
CONTROLS = Path(__file__).resolve().parents[2] / "flow" / "controls"
# No chunk for so long, and everybody has said what there was to say: an answer on loopback takes a millisecond.
QUIET_SECONDS = 0.12
# More than a provider's deadline of 0.6 s: an attempt that has said nothing for so long is not under way.
AT_WORK_SECONDS = 1.0
# A relay that nobody rings looks at the outbox; each look would be points that are always the same.
RELAY_POLL_SECONDS = "2"
HURRY_SECONDS = 0.25
PASSED_SECONDS = 30  # more than the lease, the redelivery and the first backoffs
# Around the provider's deadline of 0.6 s: the answer comes in time, or late.
PROVIDER_SECONDS = (0.3, 1.2)
# Most often a hiccup; one in six outlasts the lease of 3 s, so that the attempt is overtaken by another one.
SERVER_SECONDS = ((0.2, 0.8),) * 5 + ((3.2, 3.8),)
# A partition always does, and then heals without anybody having been told of it.
PARTED_SECONDS = (3.2, 3.8)
# An answer comes in one piece or in two, so a run may be a chunk shorter than the one before it.
BEYOND = 2
# A place in the prefetch window that is lost shows soon.
THREADS = 2
CHASES = 6
# Said now and then, whatever the effect does, so that nobody can wait for it: what psycopg prepares at the fifth time,
# kombu's sweep for messages that were not acknowledged.
BY_THE_CLOCK = (PREPARE, "SET", "ZRANGE", "EVALSHA", "SCRIPT")
_receipts = count(1)


@dataclass
class Tally:
    """What was done on the links."""

    points: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)
    begun: float = field(default_factory=monotonic)

    def add(self, link: str, watch: Watch) -> None:
        if watch.fired:
            self.points[link] += 1
            self.faults[watch.point.fault.value] += 1
            self.labels.add(f"{link} {watch.point.way} {watch.point.fault}: {watch.fired}")

    def __str__(self) -> str:
        seconds = monotonic() - self.begun
        head = f"{self.points.total()} points in {seconds:.0f} s; {dict(self.points)}; {dict(self.faults)}"
        return "\n    ".join([head, *sorted(self.labels)])


class Loop:
    """`accept` asks for the effect of one point; `settings` are told to relay and worker besides."""

    def __init__(
        self, system: System, seed: int, links: dict[str, Link], *, shortly: bool = False, **settings: Any
    ) -> None:
        self.system = system
        self.links = links
        self.tally = Tally()
        self.cold = False  # every point on connections that have yet to be made
        self.accept: Callable[[], str] = lambda: system.charge(receipt=f"wire-{next(_receipts)}@example.test")
        self._seed = seed
        self._shortly = shortly
        self._hurried_at = 0.0
        self.intents = 0
        system.relay(POLL=RELAY_POLL_SECONDS, **self.addresses("relay"), **settings)
        system.ready(system.worker("threads", concurrency=THREADS, **self.addresses("worker"), **settings))

    # --- points ------------------------------------------------------------------------------------------------

    def every_point(self, name: str, faults: Sequence[Fault], *, one_in: int = 1) -> None:
        """Each fault, each way: 1, 2, 3, … until a number is not reached any more, or the one that COUNTERFOIL_TEST_POINT
        names; then every label of an undisturbed run that was passed by. Raises at a broken promise.

        `one_in`: only every so-manieth number, or label where each is hit once; the next seed begins a step further, so
        that so many seeds in a row have hit all of them.
        """
        runs = [self.undisturbed(name) for _ in range(2)]
        for fault, way in product(faults, Way):
            first, second = (run[name, way] for run in runs)
            undisturbed = [label for label in first if label in second]
            if one := os.environ.get(ONE_POINT):
                self._the_one(name, way, fault, one)
            else:
                self._points_of(name, way, fault, undisturbed, one_in)

    def _the_one(self, name: str, way: Way, fault: Fault, one: str) -> None:
        kind, wanted, place = one.split(":", 2)
        if (kind, wanted) == (fault, way):
            at, label = (int(place), "") if place.isdecimal() else (0, place)
            self.judged(name, self.point(name, way, at, fault, label))

    def _points_of(self, name: str, way: Way, fault: Fault, labels: list[str], one_in: int) -> None:
        once = fault is Fault.PARTED  # one partition of 3 s for each label is enough
        asked = list(dict.fromkeys(labels)) if once else labels
        step = min(one_in, max(1, len(asked) // 2))  # at least two of them
        begin = self._seed % step
        if not once:
            self._numbers(name, way, fault, count(1 + begin, step))
        if once or step == 1:
            wanted = asked[begin::step]
            for label in wanted:
                self.chase(name, way, label, fault)
            missing = self._missing(name, way, fault, wanted)
            assert not missing, f"{fault}: never hit: {missing}"

    def _numbers(self, name: str, way: Way, fault: Fault, numbers: Iterator[int]) -> None:
        beyond = 0
        while beyond < BEYOND:
            watch = self.judged(name, self.point(name, way, next(numbers), fault))
            beyond = 0 if watch.fired else beyond + 1

    def chase(self, name: str, way: Way, label: str, fault: Fault) -> None:
        """Break the first chunk of that label, unless one has been hit already."""
        for _ in range(CHASES):
            if not self._missing(name, way, fault, [label]):
                break
            self.judged(name, self.point(name, way, 0, fault, label))

    def _missing(self, name: str, way: Way, fault: Fault, labels: list[str]) -> list[str]:
        said = (label for label in labels if not label.removeprefix("after ").startswith(BY_THE_CLOCK))
        return [label for label in said if f"{name} {way} {fault}: {label}" not in self.tally.labels]

    def undisturbed(self, name: str = LINKS[0]) -> dict[tuple[str, Way], list[str]]:
        """The labels of a run with nothing broken, by link and way."""
        for _ in range(2):
            nowhere = Point(Way.UP, 0, Fault.LOST)
            watches = {other: link.arm(nowhere) for other, link in self.links.items()}
            watches[name] = self.hit(name, nowhere)
        return {(link, way): list(watch.seen[way]) for link, watch in watches.items() for way in Way}

    def point(self, name: str, way: Way, n: int, fault: Fault, label: str = "") -> Point:
        """The seed and the place decide how long it is held and where it tears, whatever was done before."""
        choose = random.Random(f"{self._seed} {name} {way} {n} {fault} {label}")
        if fault is Fault.PARTED and not self._shortly:
            ranges: tuple[tuple[float, float], ...] = (PARTED_SECONDS,)
        else:
            ranges = (PROVIDER_SECONDS,) if name.endswith(PROVIDERS) else SERVER_SECONDS
        seconds = choose.uniform(*ranges[0] if self._shortly else choose.choice(ranges))
        return Point(way, n, fault, seconds, choose.uniform(0.1, 0.9), label)

    def judged(self, name: str, point: Point) -> Watch:
        """One point, and the oracle's word on it. Raises with the command that repeats it."""
        try:
            watch = self.hit(name, point)
        except AssertionError as error:
            raise AssertionError(f"{self._repeat(point)}\n{error}\n{self._stuck()}") from error
        wrong = self.system.oracle.violations()
        assert not wrong, "\n".join([self._repeat(point), f"at {watch.fired!r}", *wrong])
        self.tally.add(name, watch)
        return watch

    def hit(self, name: str, point: Point) -> Watch:
        """One effect with that chunk broken; back when it is settled or parked, with the link whole again."""
        self.system.until(self.quiet, "nobody says anything")
        watch = self.links[name].arm(point)
        if self.cold:
            self.links[name].hang_up()
        self.accept()
        self.intents += 1
        self.system.until(lambda: watch.fired or (self._done() and self._nothing_out() and self.quiet()), "it is over")
        if watch.fired:
            self.system.until(lambda: watch.over and self._done(hurry=True), f"all is settled after {watch.fired}")
            # What is still out belongs to a connection that is gone: Valkey would bring it after minutes, for nothing.
            self.system.until(lambda: self._nothing_out() or self.quiet(), "nobody is at work")
            if self.system.wire.name == "valkey":
                self.system.wire.empty()
        return watch

    # --- the parts of it ---------------------------------------------------------------------------------------

    def _done(self, *, hurry: bool = False) -> bool:
        """All settled or parked, and the outbox says the same."""
        open_ones = self.system.sql(
            "select e.id from effects e left join outbox o on o.effect_id = e.id where case e.state"
            " when 'parked' then o.road <> 'parked' else e.settled_at is null or o.effect_id is not null end"
        )
        if open_ones and hurry and monotonic() > self._hurried_at + HURRY_SECONDS:
            self._hurried_at = monotonic()
            self._pass_time()
        return not open_ones

    def _pass_time(self) -> None:
        """Past every backoff and redelivery; past a lease only when no message is out."""
        moved = f"interval '{PASSED_SECONDS} seconds'"
        idle = self._nothing_out()
        lease, held = (f", lease_until = lease_until - {moved}", "") if idle else ("", " and state <> 'executing'")
        self.system.sql(
            "begin;"
            f" update effects set not_before = not_before - {moved}{lease} where settled_at is null{held};"
            f" update outbox set available_at = available_at - {moved}"
            f" where road <> 'parked' and effect_id in (select id from effects where settled_at is null{held});"
            " select pg_notify('counterfoil', ''); commit"
        )

    def _nothing_out(self) -> bool:
        """RabbitMQ brings back at once what a lost connection had, and does not say what is out."""
        return self.system.wire.idle() and (self.system.wire.name == "valkey" or self._silent_work())

    def _silent_work(self) -> bool:
        return self._silent(AT_WORK_SECONDS, "worker-postgres", "worker-stripe", "worker-mail")

    def quiet(self) -> bool:
        """Whether no link has had a chunk for a while."""
        return self._silent(QUIET_SECONDS, *self.links)

    def _silent(self, seconds: float, *names: str) -> bool:
        """Whether none of these links has had a chunk for so long."""
        now = monotonic()
        return all(now > link.spoke_at + seconds for name, link in self.links.items() if name in names)

    def addresses(self, program: str) -> dict[str, Any]:
        """What the program is told instead of the real addresses."""
        via = {name.partition("-")[2]: link.port for name, link in self.links.items() if name.startswith(program)}
        return {
            SETTINGS[peer]: _with_port(str(self.system.settings[SETTINGS[peer]]), port) for peer, port in via.items()
        }

    def _repeat(self, point: Point) -> str:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" (")[0]
        where = f"{ONE_POINT}='{point.fault}:{point.way}:{point.n or point.label}' " if "any_chunk" in test else ""
        return f"repeat with COUNTERFOIL_TEST_SEED={self._seed} {where}python -m pytest -m 'slow or not slow' '{test}'"

    def _stuck(self) -> str:
        """What was not over, and why."""
        rows = self.system.sql(
            "select e.id, e.kind, e.state, e.attempt, lease_until - now() as lease, e.not_before, o.road,"
            " o.available_at - now() as due from effects e left join outbox o on o.effect_id = e.id"
            " where e.settled_at is null or o.effect_id is not null"
        )
        return "\n".join([*map(str, rows), f"now {monotonic():.1f}, idle: {self._nothing_out()}"])


@contextmanager
def loop(
    system: System,
    seed: int,
    *,
    names: Sequence[str] = LINKS,
    control: str = "",
    shortly: bool = False,
    **settings: Any,
) -> Iterator[Loop]:
    """A house behind proxies; `control` takes a guard out of its relay and its worker."""
    settings |= {"PYTHONPATH": str(CONTROLS), "TEST_CONTROL": control} if control else {}
    links = {}
    for name in names:
        peer = name.partition("-")[2]
        parts = urlsplit(str(system.settings[SETTINGS[peer]]))
        assert parts.hostname, parts
        assert parts.port, parts
        links[name] = Link(name, peer, (parts.hostname, parts.port))
    with proxied(list(links.values())):
        try:
            yield Loop(system, seed, links, shortly=shortly, **settings)
        finally:
            for program in system.programs:  # before the proxies, or they would fill their logs
                program.end()


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"))
