"""Each reason that an attempt can end with has a class, and a provider's code gets into the error only as a word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.core.effect import Attempt, Guarantee, Policy
from service.core.outcome import Contradiction, Deferred, Outcome, Unknown
from service.core.state import State
from service.engine import groups
from service.engine.settlement import settlement
from service.store.attempts import Limits

ROOT = Path(groups.__file__).parents[1]
_REASON = re.compile(r'\b(?:Deferred|Unknown|Contradiction|Absent|unsettled)\((?:reply, )?f?"([a-z_0-9]+)')
ATTEMPT = Attempt(
    id="0198c0de-0000-7000-8000-000000000001", tenant="default", kind="charge", number=1, prior=State.PENDING,
    in_doubt=False, sent_age_seconds=0.0, tries=1, waited_seconds=0.0, progress={}, policy=Policy.AT_MOST_ONCE,
    dedupe_key="k", context={}, request={},
)  # fmt: skip


def reasons() -> list[str]:
    """As they stand in the source; of one that is put together, how it begins."""
    sources = [*(ROOT / "providers").rglob("*.py"), ROOT / "engine" / "execute.py", ROOT / "engine" / "verify.py"]
    return sorted({word for path in sources for word in _REASON.findall(path.read_text())})


def test_each_reason_has_a_class():
    found = reasons()
    assert len(found) > 25
    assert [word for word in found if groups.trouble(word) == "other"] == []


def error_of(outcome: Outcome, **limits: int) -> str | None:
    known = Limits(lease=90, budget=limits.get("budget", 5), age_limit=1e6)
    done = settlement(ATTEMPT, outcome, provider="stripe", guarantee=Guarantee.KEYED, limits=known, random=lambda: 0.5)
    return done.error


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Deferred("access_refused", evidence={"code": "api_key_expired"}), "access_refused (api_key_expired)"),
        (Unknown("bug", {"exception": "KeyError"}), "bug (KeyError)"),
        (Contradiction("idempotency_error", {"code": "idempotency_error"}), "idempotency_error"),
        (Unknown("status_500", {"status": 500}), "status_500"),
    ],
)
def test_a_code_stands_behind_the_error_once(outcome: Outcome, error: str):
    assert error_of(outcome) == error
    assert error_of(outcome, budget=1) == error


@pytest.mark.parametrize("code", ["a b", "ada@example.test", "4242424242424242", "x" * 80, "", 7, None, "a)\n("])
def test_what_is_no_word_is_not_repeated(code: object):
    assert error_of(Deferred("access_refused", evidence={"code": code})) == "access_refused"
