"""A soak is judged by sums that its programs know beforehand: so the programs themselves must add up."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.chaos.soak.history import History
from tests.chaos.soak.wishes import DECLINED, REACH, Program, Wish

MANY = 3_000


@pytest.fixture
def wishes(seed: int) -> list[Wish]:
    return list(islice(Program(seed, "client-0").wishes(), MANY))


def test_a_program_is_the_same_however_often_it_is_read(seed: int, wishes: list[Wish]) -> None:
    assert list(islice(Program(seed, "client-0").wishes(), MANY)) == wishes
    assert list(islice(Program(seed, "client-1").wishes(), MANY)) != wishes


def test_a_charge_is_given_back_once_at_most_and_never_more_than_was_taken(wishes: list[Wish]) -> None:
    refunds = [wish for wish in wishes if wish.verb == "refund"]
    charged = [wishes[wish.upon or 0] for wish in refunds]
    assert len({wish.number for wish in charged}) == len(charged) > 100
    for refund, charge in zip(refunds, charged, strict=True):
        assert charge.verb == "charge"
        assert charge.body["payment_method"] != DECLINED
        assert 0 < -refund.moves == refund.body["amount"] <= charge.body["amount"]
        assert refund.number - REACH <= charge.number < refund.number


def test_what_is_held_is_captured_or_cancelled_next(wishes: list[Wish]) -> None:
    held = [wish for wish in wishes[:-1] if wish.verb == "hold"]
    assert held
    for wish in held:
        after = wishes[wish.number + 1]
        assert after.verb in ("capture", "cancel")
        assert after.upon == wish.number
        assert 0 <= after.moves <= wish.body["amount"]


def test_a_key_is_new_unless_it_is_repeated_and_a_change_changes(wishes: list[Wish]) -> None:
    own = [wish.key for wish in wishes if wish.verb not in ("repeat", "change")]
    assert len(set(own)) == len(own)
    for wish in wishes:
        if wish.verb in ("repeat", "change"):
            first = wishes[wish.upon or 0]
            assert wish.key == first.key
            assert (wish.body == first.body) == (wish.verb == "repeat")
            assert wish.moves == 0


def test_only_what_was_answered_has_an_end_and_a_torn_line_is_nobodys_word(tmp_path: Path) -> None:
    history = History(tmp_path / "client.jsonl")
    history.add(0, "invoke")
    history.add(0, "info", "503")
    history.add(0, "ok", "an-id")
    history.add(1, "invoke")
    with history.path.open("a") as file:
        file.write('{"number": 1, "type": "o')
    assert {number: (line.type, line.said) for number, line in history.ends().items()} == {0: ("ok", "an-id")}
    assert history.count("info") == 1
