"""From an outcome to what is written: every case of the design, from every state an attempt can start in."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from service.core.effect import Attempt, Guarantee, Policy
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import FINAL, TRANSITIONS, State
from service.engine.settlement import NOTHING_TO_SEND, UNKNOWN_AFTER_SECONDS, settlement
from service.store.attempts import Limits, Settlement

LIMITS = Limits(lease=90.0, budget=5, age_limit=3600.0)
PRIORS = [state for state, targets in TRANSITIONS.items() if State.EXECUTING in targets]
OUTCOMES: list[Outcome] = [
    Succeeded("pi_1", {"charge": "ch_1"}, {"status": 200}),
    Failed("card_declined", "Your card was declined.", {"decline_code": "do_not_honor"}, {"status": 402}),
    Awaiting("processing", "pi_1", 60.0, {"next": "poll"}, {"status": 200}),
    Deferred("rate_limited", None, {"status": 429}),
    Deferred("rate_limited", 7.0, {"status": 429}),
    Unknown("timeout", {"phase": "read"}),
    Absent("absent", harmless=True),
    Absent("absent"),
    Contradiction("echo_mismatch", {"status": 200}),
]
ATTEMPT = Attempt(
    id="0198c0de-0000-7000-8000-000000000001",
    tenant="default",
    kind="charge",
    number=1,
    prior=State.PENDING,
    in_doubt=False,
    sent_age_seconds=0.0,
    tries=1,
    waited_seconds=0.0,
    request={},
    progress={},
    policy=Policy.AT_MOST_ONCE,
    dedupe_key="order:17:charge",
    context={},
)


def settle(
    attempt: Attempt,
    outcome: Outcome,
    *,
    guarantee: Guarantee = Guarantee.KEYED,
    limits: Limits = LIMITS,
    draw: float = 0.5,
) -> Settlement:
    return settlement(attempt, outcome, provider="stripe", guarantee=guarantee, limits=limits, random=lambda: draw)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("number", [1, 5])
def test_whatever_is_written_is_a_legal_move_and_leaves_a_way_on(outcome, guarantee, policy, prior, number):
    attempt = replace(ATTEMPT, prior=prior, policy=policy, number=number, in_doubt=prior is State.UNKNOWN)
    done = settle(attempt, outcome, guarantee=guarantee)
    assert (done.id, done.attempt) == (attempt.id, attempt.number)
    assert done.state in TRANSITIONS[State.EXECUTING]
    assert {**outcome.evidence}.items() <= {**done.evidence}.items()
    # I2: final, or coming due again, or parked with a reason; never nothing.
    ways = (done.state in FINAL, done.after_seconds is not None, done.parked_reason is not None)
    assert sum(ways) == 1
    # The schema asks for these: a final effect is certain and has an outcome, an unknown one is in doubt.
    if done.state in FINAL:
        assert done.outcome is not None
        assert not done.in_doubt
    if done.state is State.UNKNOWN:
        assert done.in_doubt
    if done.provider_ref is not None:
        assert done.provider is not None


def test_the_list_above_holds_each_kind_of_outcome():
    assert {type(outcome) for outcome in OUTCOMES} == set(get_args(Outcome))


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("in_doubt", [False, True])
def test_an_own_answer_settles_whatever_was_before(prior, in_doubt):
    attempt = replace(
        ATTEMPT, prior=prior, in_doubt=in_doubt, number=99, tries=99, sent_age_seconds=1e9, waited_seconds=1e9
    )
    done = settle(attempt, OUTCOMES[0])
    assert (done.state, done.fact, done.in_doubt) == (State.SUCCEEDED, "succeeded", False)
    assert (done.provider, done.provider_ref, done.outcome) == ("stripe", "pi_1", {"charge": "ch_1"})
    lost = settle(attempt, OUTCOMES[1])
    assert (lost.state, lost.fact, lost.in_doubt) == (State.FAILED, "failed", False)
    assert lost.outcome == {
        "code": "card_declined",
        "message": "Your card was declined.",
        "decline_code": "do_not_honor",
    }


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_front_answer_says_nothing_about_an_earlier_send(prior, in_doubt):
    done = settle(replace(ATTEMPT, prior=prior, in_doubt=in_doubt), Deferred("rate_limited"))
    assert (done.state, done.in_doubt, done.fact) == (prior, in_doubt, "deferred")
    assert done.error == "rate_limited"


def test_the_providers_wish_to_wait_is_kept_with_a_little_jitter_on_top():
    waits = [settle(ATTEMPT, Deferred("rate_limited", 7.0), draw=draw).after_seconds for draw in (0.0, 0.5, 0.999)]
    assert waits == [7.0, 7.5, 7.999]


def test_without_a_wish_the_wait_grows_with_the_attempt():
    waits = [settle(replace(ATTEMPT, number=n), Deferred("refused")).after_seconds for n in (1, 2, 3, 4)]
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_an_accepted_answer_is_asked_after_again_when_the_provider_says():
    done = settle(ATTEMPT, OUTCOMES[2])
    assert (done.state, done.after_seconds, done.provider_ref) == (State.AWAITING, 60.0, "pi_1")


@pytest.mark.parametrize("attempt", [replace(ATTEMPT, tries=500), replace(ATTEMPT, waited_seconds=1e7)])
def test_awaiting_is_not_parked_by_budget_or_age_at_settlement_because_the_provider_has_it(attempt):
    assert settle(attempt, OUTCOMES[2]).state is State.AWAITING


@pytest.mark.parametrize("prior", PRIORS)
def test_w8_no_answer_is_unknown_and_in_doubt_and_waits_for_a_request_in_progress(prior):
    done = settle(replace(ATTEMPT, prior=prior), Unknown("timeout"))
    assert (done.state, done.in_doubt, done.fact) == (State.UNKNOWN, True, "unknown")
    assert done.after_seconds is not None
    assert done.after_seconds >= UNKNOWN_AFTER_SECONDS


@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize("policy", Policy)
def test_only_blind_and_at_most_once_parks_an_unknown_at_once(guarantee, policy):
    done = settle(replace(ATTEMPT, policy=policy), Unknown("timeout"), guarantee=guarantee)
    parks = guarantee is Guarantee.BLIND and policy is Policy.AT_MOST_ONCE
    assert done.state is (State.PARKED if parks else State.UNKNOWN)
    assert done.in_doubt


@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("reason", sorted(NOTHING_TO_SEND))
def test_an_unknown_that_may_not_be_sent_again_is_for_a_person(guarantee, policy, reason):
    done = settle(replace(ATTEMPT, policy=policy), Unknown(reason), guarantee=guarantee)
    assert (done.state, done.parked_reason, done.in_doubt) == (State.PARKED, reason, True)


@pytest.mark.parametrize(
    ("harmless", "policy", "state"),
    [
        (True, Policy.AT_MOST_ONCE, State.PENDING),
        (True, Policy.AT_LEAST_ONCE, State.PENDING),
        (False, Policy.AT_MOST_ONCE, State.PARKED),
        (False, Policy.AT_LEAST_ONCE, State.PENDING),
    ],
)
def test_absence_leads_back_to_a_fresh_send_when_that_is_harmless_or_the_policy_says_so(harmless, policy, state):
    attempt = replace(ATTEMPT, prior=State.UNKNOWN, in_doubt=True, policy=policy)
    done = settle(attempt, Absent("absent", harmless=harmless))
    assert (done.state, done.in_doubt) == (state, state is State.PARKED)
    assert done.fact == ("parked" if state is State.PARKED else "absent")


def test_an_unknown_is_asked_after_again_when_it_says():
    done = settle(ATTEMPT, Unknown("not_found", {}, 1800.0), draw=0.5)
    assert (done.state, done.after_seconds) == (State.UNKNOWN, 1800.5)


def test_a_contradiction_is_for_a_person_with_its_evidence():
    done = settle(ATTEMPT, OUTCOMES[-1])
    assert (done.state, done.parked_reason, done.in_doubt) == (State.PARKED, "echo_mismatch", True)
    assert done.evidence == {"status": 200, "reason": "echo_mismatch"}


@pytest.mark.parametrize("outcome", [Deferred("refused"), Unknown("timeout")])
@pytest.mark.parametrize(
    ("tries", "waited", "reason"),
    [
        (4, 0.0, None),
        (5, 0.0, "attempt_budget"),
        (6, 0.0, "attempt_budget"),
        (1, 3590.0, None),
        (1, 3600.0, "age_limit"),
    ],
)
def test_the_last_attempt_and_the_last_hour_park(outcome, tries, waited, reason):
    done = settle(replace(ATTEMPT, tries=tries, waited_seconds=waited), outcome, draw=0.01)
    assert done.parked_reason == reason
    assert (done.state is State.PARKED) is (reason is not None)
    if reason:
        assert done.after_seconds is None
        # Why it was tried so often is what a person asks first: failures are grouped by it.
        assert done.error == done.evidence["last_error"] == outcome.reason


def test_parking_a_front_answer_keeps_the_doubt_as_it_was():
    for in_doubt in (False, True):
        done = settle(replace(ATTEMPT, tries=5, in_doubt=in_doubt), Deferred("refused"))
        assert (done.state, done.in_doubt) == (State.PARKED, in_doubt)
