"""A type checker knows what a call may hold: mypy finds the planted mistakes of a caller, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALLER = """
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tasks import cancel, capture, charge, email, refund
from tasks.result import EffectResult


def plain(session: Session, connection: Connection) -> None:
    one: EffectResult = charge.apply_async(
        kwargs={"amount": 4200, "currency": "eur", "payment_method": "pm_1"}, dedupe_key="a", session=session
    )
    refund.apply_async(kwargs={"charge": one.id, "amount": 1, "currency": "eur"}, dedupe_key="b", session=connection)
    capture.apply_async(kwargs={"charge": one.id, "amount": 1, "currency": "eur"}, dedupe_key="c", priority=9)
    cancel.apply_async(kwargs={"charge": one.id, "reason": "abandoned"}, dedupe_key="d", countdown=1.5)
    email.apply_async(kwargs={"to": "a@b.test", "subject": "s", "text": "t"}, dedupe_key="e", tenant="t")


async def awaited(session: AsyncSession) -> EffectResult:
    pay = charge.apply_async(
        kwargs={"amount": 1, "currency": "eur", "payment_method": "pm_1"}, dedupe_key="a", session=session
    )
    return await pay


def wrong() -> None:
    charge.apply_async(kwargs={"amount": "4200", "currency": "eur", "payment_method": "pm_1"}, dedupe_key="a")  # WRONG
    charge.apply_async(kwargs={"amount": 4200, "currency": "eur"}, dedupe_key="a")  # WRONG
    charge.apply_async(kwargs={"amount": 1, "currency": "eur", "payment_method": "pm_1", "card": "x"}, dedupe_key="a")  # WRONG
    charge.apply_async(kwargs={"amount": 1, "currency": "eur", "payment_method": "pm_1"})  # WRONG
    email.apply_async(kwargs={"to": "a@b.test", "subject": "s", "text": "t"}, dedupe_key=17)  # WRONG
    refund.apply_async(kwargs={"charge": "x", "amount": 1, "currency": "eur", "reason": "why"}, dedupe_key="a")  # WRONG
"""


def test_mypy_finds_a_callers_mistakes_and_nothing_else(tmp_path):
    caller = tmp_path / "caller.py"
    caller.write_text(CALLER)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(caller)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = {int(line) for line in re.findall(r"caller\.py:(\d+): error", told)}
    planted = {number for number, line in enumerate(CALLER.splitlines(), 1) if "# WRONG" in line}
    assert found == planted, told
