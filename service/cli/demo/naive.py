"""The same storm on what most people run: a plain Celery task with `acks_late` and automatic retries, no ledger.

Without relay and Postgres there are fewer things to kill, and still money moves twice or never.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.cli.demo.crowd import DECLINING_CARD, GOOD_CARD, REPEATS_EVERY, orders
from service.cli.demo.run import SENDING_SECONDS, weather
from service.cli.demo.score import Asked, Score, count_mail, count_money
from service.cli.demo.show import Show
from service.cli.demo.stage import WORKERS, Stage
from service.cli.demo.storm import Blow, Storm, drop_answers, empty_broker, kill_worker
from service.cli.supervisor import Program

BLOWS = [Blow(0.15, kill_worker), Blow(0.30, drop_answers), Blow(0.60, empty_broker), Blow(0.90, kill_worker)]
QUIET_SECONDS = 6.0  # longer than its broker's redelivery: when the ledger has not moved for this long, it is over


class NaiveStage(Stage):
    """Valkey, the two fakes and two plain workers."""

    paying_route = "create"
    needs_postgres = False

    def prepare(self) -> None:
        """No schema: there is no record."""

    def cast(self) -> list[Program]:
        """Two workers with the usual flags."""
        argv = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "fakes.naive",
            "worker",
            "-P",
            "threads",
            "-c",
            "8",
            "-l",
            "ERROR",
        ]
        return [Program(name, [*argv, "-n", f"{name}@%h"]) for name in WORKERS]

    def environment(self) -> dict[str, str]:
        """Where the naive task finds its broker and its providers."""
        stripe, mail = self.stripe.address(), self.mail.address()
        return {
            "NAIVE_BROKER_URL": str(self.servers.addresses.broker_url),
            "NAIVE_STRIPE_API_BASE": stripe["url"],
            "NAIVE_MAIL_URL": mail["http_url"],
        }

    def worker_in_the_middle(self) -> str | None:
        """Nobody writes down who is charging, so nobody can say."""
        return None


class NaiveCrowd:
    """Calls `delay` in its own time, a tenth of the orders twice: an impatient caller has no key to repeat."""

    def __init__(self, asked: Sequence[Asked], seconds: float, choose: random.Random) -> None:
        self.sent = 0
        turns = [*asked, *(one for i, one in enumerate(asked) if i % REPEATS_EVERY == 0)]
        choose.shuffle(turns)
        self._turns = turns
        self._pace = seconds / max(1, len(turns))
        self._start = time.monotonic()
        self._feed = subprocess.Popen([sys.executable, "-m", "fakes.naive"], stdin=subprocess.PIPE, text=True)

    def progress(self) -> int:
        """Hand over what is due by now; how many have been."""
        assert self._feed.stdin is not None  # noqa: S101 - it was asked for
        due = min(len(self._turns), int((time.monotonic() - self._start) / self._pace) + 1)
        while self.sent < due:
            one = self._turns[self.sent]
            line = {"order": one.order, "amount": one.amount, "to": one.address}
            line["card"] = DECLINING_CARD if one.declines else GOOD_CARD
            self._feed.stdin.write(json.dumps(line) + "\n")
            self._feed.stdin.flush()
            self.sent += 1
        return self.sent

    def finish(self, until: float) -> None:
        """Wait for the last hand-over."""
        assert self._feed.stdin is not None  # noqa: S101 - it was asked for
        self._feed.stdin.close()
        self._feed.wait(timeout=max(1.0, until - time.monotonic()))


def run_naive(folder: Path, charges: int, choose: random.Random, show: Show, seconds_max: float) -> Score:
    """Run it and return the score. Raises CounterfoilError when something cannot start."""
    until = time.monotonic() + seconds_max
    show.say("starting Valkey, a Stripe, a mail server and two plain Celery workers (acks_late, retries, no ledger)")
    with NaiveStage(folder, show.log) as stage:
        asked = orders(charges, choose)
        show.say(f"{charges} charges with receipts, a tenth of them asked for twice")
        crowd = NaiveCrowd(asked, SENDING_SECONDS, choose)
        storm = Storm(stage, choose, show.blow, BLOWS)
        with show.live(stage, asked) as picture:
            weather(crowd, storm, picture, len(crowd._turns), until)  # noqa: SLF001 - one module
            _calm(stage, picture, until)
        money = stage.stripe.get("/_fake/ledger")["money"]
        return Score(
            mode="naive", requested=len(asked), sent=crowd.sent, blows=storm.struck, redeliveries_absorbed=0,
            **count_money(asked, money), **count_mail(asked, stage.mail.get("/_fake/mailbox")["mail"]),
        )  # fmt: skip


def _calm(stage: Stage, picture: Any, until: float) -> None:
    count, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS and time.monotonic() < until:
        picture.draw()
        time.sleep(0.2)
        now = len(stage.stripe.get("/_fake/ledger")["money"])
        if now != count:
            count, since = now, time.monotonic()
