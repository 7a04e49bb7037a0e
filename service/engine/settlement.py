"""From what an attempt learned to what it writes: pure, one case a line of the design."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import assert_never

from service.core.backoff import full_jitter
from service.core.effect import Attempt, Guarantee, Policy
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import State
from service.store.attempts import Limits, Settlement
from service.telemetry.scrub import scrub

UNKNOWN_AFTER_SECONDS = 2.0  # before the same key is sent again: a request in progress answers 409 until it is over
QUOTED_LENGTH_MIN = 4  # shorter ones (a currency, a country) say nothing of anybody and stand in every sentence
POLICIES = frozenset(Policy)
# The provider's name of its error, or our exception's: a word. What else may stand there is not repeated.
_CODE = re.compile(r"[A-Za-z][A-Za-z_]{0,58}[0-9]{0,4}")
NOTHING_TO_SEND = frozenset({"key_expired", "blind_unknown"})
"""Reasons of an Unknown after which nothing may be sent any more: the provider may have forgotten the key, or is blind
and has had the copies its policy allows. Only a person, or a look-up, can go on."""


def settlement(
    attempt: Attempt,
    outcome: Outcome,
    *,
    provider: str,
    guarantee: Guarantee,
    limits: Limits,
    random: Callable[[], float],
) -> Settlement:
    """What to write for `outcome`. The budget and the age limit turn another wait into `parked`."""
    done = _settlement(attempt, outcome, provider, guarantee, random)
    after = done.after_seconds
    if after is not None and not isinstance(outcome, Awaiting):
        if attempt.tries >= limits.budget:
            done = _park(attempt, outcome, "attempt_budget", in_doubt=done.in_doubt, error=done.error)
        elif attempt.waited_seconds + after > limits.age_limit:
            done = _park(attempt, outcome, "age_limit", in_doubt=done.in_doubt, error=done.error)
    return _with_code(done, outcome)


def _settlement(  # noqa: PLR0911 - one case a line of the design
    attempt: Attempt, outcome: Outcome, provider: str, guarantee: Guarantee, random: Callable[[], float]
) -> Settlement:
    write = partial(Settlement, id=attempt.id, attempt=attempt.number, evidence=outcome.evidence)
    match outcome:
        case Succeeded(ref, detail):
            return write(
                state=State.SUCCEEDED,
                fact="succeeded",
                in_doubt=False,
                outcome=detail,
                provider=provider,
                provider_ref=ref,
            )
        case Failed(code, message, detail):
            told = {"code": code, "message": _discreet(message, attempt), **detail}
            return write(state=State.FAILED, fact="failed", in_doubt=False, outcome=told, provider=provider)
        case Awaiting(reason, ref, poll, detail):
            return write(
                state=State.AWAITING,
                fact="awaiting",
                in_doubt=False,
                outcome=detail or None,
                provider=provider,
                provider_ref=ref,
                after_seconds=poll,
                error=reason,
            )
        case Deferred(reason, after):
            wait = full_jitter(attempt.number, random) if after is None else after + random()
            return write(
                state=attempt.prior, fact="deferred", in_doubt=attempt.in_doubt, after_seconds=wait, error=reason
            )
        case Unknown(reason, _, after):
            if reason in NOTHING_TO_SEND or (guarantee is Guarantee.BLIND and attempt.policy is Policy.AT_MOST_ONCE):
                return _park(attempt, outcome, reason, in_doubt=True)
            wait = UNKNOWN_AFTER_SECONDS + full_jitter(attempt.number, random) if after is None else after + random()
            return write(state=State.UNKNOWN, fact="unknown", in_doubt=True, after_seconds=wait, error=reason)
        case Absent(reason, harmless):
            if not harmless and attempt.policy is Policy.AT_MOST_ONCE:
                return _park(attempt, outcome, reason, in_doubt=True)
            # The only way back to a fresh send: what may have gone out before is proven not to have been done.
            wait = full_jitter(attempt.number, random)
            return write(state=State.PENDING, fact="absent", in_doubt=False, after_seconds=wait, error=reason)
        case Contradiction(reason):
            return _park(attempt, outcome, reason, in_doubt=True)
        case _:
            assert_never(outcome)


def _with_code(done: Settlement, outcome: Outcome) -> Settlement:
    """`error` with the provider's code behind it, `access_refused (api_key_expired)`: failures are grouped by both."""
    code = outcome.evidence.get("code") or outcome.evidence.get("exception")
    if done.error is None or not isinstance(code, str) or code == done.error or not _CODE.fullmatch(code):
        return done
    return replace(done, error=f"{done.error} ({code})")


def _discreet(message: str, attempt: Attempt) -> str:
    """A refusal without what it quotes of the request: an outcome is kept for ever, a request goes (ADR 20)."""
    said = scrub(message)
    for value in _words(attempt.request):
        said = re.sub(re.escape(value), "[withheld]", said, flags=re.IGNORECASE)
    return said


def _words(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _words(one)
    elif isinstance(value, str) and value not in POLICIES:
        yield from (line for line in value.splitlines() if len(line) >= QUOTED_LENGTH_MIN)


def _park(attempt: Attempt, outcome: Outcome, reason: str, *, in_doubt: bool, error: str | None = None) -> Settlement:
    """`error` is what the last attempt met, where that is not why it is parked: a spent budget explains nothing."""
    met = {"last_error": error} if error else {}
    return Settlement(
        id=attempt.id,
        attempt=attempt.number,
        state=State.PARKED,
        fact="parked",
        in_doubt=in_doubt,
        evidence={**outcome.evidence, **met, "reason": reason},
        parked_reason=reason,
        error=error or reason,
    )
