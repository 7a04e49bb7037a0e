"""One run of the demo: stage, crowd, storm, calm, score."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from service.cli.demo.crowd import Crowd, orders
from service.cli.demo.score import Asked, Score, count_mail, count_money
from service.cli.demo.show import Show
from service.cli.demo.stage import Stage
from service.cli.demo.storm import Storm

SENDING_SECONDS = 14.0  # the requests are spread over this, so that each blow meets charges in the middle


def run(folder: Path, charges: int, choose: random.Random, show: Show, seconds_max: float) -> Score:
    """Run it and return the score. Raises CounterfoilError when something cannot start."""
    until = time.monotonic() + seconds_max
    show.say("starting Postgres, Valkey, a Stripe, a mail server, API, relay and two workers")
    with Stage(folder, show.log) as stage:
        asked = orders(charges, choose)
        show.say(f"{charges} charges with receipts, a tenth of them asked for twice")
        crowd = Crowd(stage.api_port, asked, SENDING_SECONDS, choose)
        storm = Storm(stage, choose, show.blow)
        turns = charges + (charges + 9) // 10
        with show.live(stage, asked) as picture:
            weather(crowd, storm, picture, turns, until)
            unfinished = _calm(picture, until)
        return _score(stage, asked, crowd.sent, storm.struck, unfinished)


def weather(crowd: Any, storm: Storm, picture: Any, turns: int, until: float) -> None:
    """Let the crowd ask and the storm strike until every request has been answered."""
    while crowd.progress() < turns and time.monotonic() < until:
        storm.look(crowd.progress() / turns)
        picture.draw()
        time.sleep(0.05)
    storm.look(1.0)
    crowd.finish(until)


def _calm(picture: Any, until: float) -> int:
    """Wait until nothing is left to deliver; how many effects are still unsettled at the end of patience."""
    from service.core.errors import DependencyUnavailable

    left = 1
    while left and time.monotonic() < until:
        picture.draw()
        time.sleep(0.1)
        try:
            left = unsettled()
        except DependencyUnavailable:
            continue
    return left


def unsettled() -> int:
    """Rows still in the outbox: only to know when to count; the score itself never asks our tables."""
    from service.store import outbox
    from service.store.database import statement

    with statement() as connection:
        now = outbox.stats(connection)
    return int(now["fresh"] + now["later"] + now["published"] + now["parked"])


def _score(stage: Stage, asked: list[Asked], sent: int, blows: int, unfinished: int) -> Score:
    money = stage.stripe.get("/_fake/ledger")["money"]
    mailbox = stage.mail.get("/_fake/mailbox")["mail"]
    return Score(
        mode="counterfoil",
        requested=len(asked),
        sent=sent,
        blows=blows,
        unfinished=unfinished,
        redeliveries_absorbed=redeliveries(),
        **count_money(asked, money),
        **count_mail(asked, mailbox),
    )


def redeliveries() -> int:
    """Attempts beyond the first and repeated requests: what would have been doubles without the ledger."""
    from service.store.database import statement
    from service.store.journal import count_absorbed

    with statement() as connection:
        return count_absorbed(connection)
