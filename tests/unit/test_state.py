"""The state machine says the same in code as the design does."""

from __future__ import annotations

import pytest

from service.core.state import FINAL, TRANSITIONS, State, mermaid


def test_every_state_has_a_line_in_the_table():
    assert set(TRANSITIONS) == set(State)


def test_final_states_are_left_by_nothing_and_all_others_have_a_way_out():
    assert {State.SUCCEEDED, State.FAILED} == FINAL
    for state, targets in TRANSITIONS.items():
        assert bool(targets) is (state not in FINAL)


def test_every_state_is_reachable_from_pending():
    reached, front = {State.PENDING}, [State.PENDING]
    while front:
        news = TRANSITIONS[front.pop()] - reached
        reached |= news
        front += news
    assert reached == set(State)


@pytest.mark.parametrize("state", [s for s in State if s not in FINAL])
def test_every_unfinished_state_can_still_become_final(state):
    reached, front = {state}, [state]
    while front:
        news = TRANSITIONS[front.pop()] - reached
        reached |= news
        front += news
    assert reached >= FINAL


def test_no_state_leads_to_itself_so_a_lost_lease_passes_through_unknown():
    assert all(state not in targets for state, targets in TRANSITIONS.items())


def test_only_a_claim_leads_to_executing_and_parked_is_never_claimed():
    claimable = {state for state, targets in TRANSITIONS.items() if State.EXECUTING in targets}
    assert claimable == {State.PENDING, State.AWAITING, State.UNKNOWN}


def test_the_diagram_draws_each_move_once():
    lines = mermaid().splitlines()
    moves = [(a, b) for a, targets in TRANSITIONS.items() for b in targets]
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> pending"]
    assert sorted(lines[2:]) == sorted(
        [f"    {a} --> {b}" for a, b in moves] + [f"    {final} --> [*]" for final in FINAL]
    )
