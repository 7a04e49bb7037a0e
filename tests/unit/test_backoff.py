"""Backoff is full jitter: never nothing, never more than the cap, and spread over the whole range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.core.backoff import BASE_SECONDS, CAP_SECONDS, full_jitter

DRAWS = st.floats(0, 1, exclude_max=True)


@given(tries=st.integers(0, 10_000), draw=DRAWS)
def test_a_wait_lies_between_a_blink_and_the_cap_whatever_the_try(tries, draw):
    assert 0.05 <= full_jitter(tries, lambda: draw) <= CAP_SECONDS


@given(tries=st.integers(1, 9), draw=DRAWS)
def test_the_ceiling_doubles_with_each_try(tries, draw):
    assert full_jitter(tries, lambda: draw) <= BASE_SECONDS * 2**tries


@given(tries=st.integers(1, 60), low=DRAWS, high=DRAWS)
def test_a_higher_draw_never_waits_less(tries, low, high):
    low, high = sorted((low, high))
    assert full_jitter(tries, lambda: low) <= full_jitter(tries, lambda: high)


def test_the_cap_can_be_lowered():
    assert full_jitter(20, lambda: 0.999, cap_seconds=3) < 3
