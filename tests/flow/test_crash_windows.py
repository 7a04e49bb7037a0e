"""One test per crash window, W1 to W11: each window is reached exactly, somebody is killed in it, nobody helps.

A window is reached by holding something: a request at a barrier of the provider, a row under a lock, a broker that
is frozen. Then SIGKILL, and from there on the outbox and the lease alone bring the effect to its end.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.flow.system import System
from tests.flow.wires import ValkeyWire


def test_w1_a_caller_killed_before_its_commit_has_asked_for_nothing(system: System) -> None:
    system.relay()
    system.worker()
    killed = system.start("caller", ["tests.flow.caller", "order:w1", "wait"])
    lost = system.until(killed.text, "the caller is inside its transaction").strip()
    killed.kill()
    open_ones = "select 1 from pg_stat_activity where datname = current_database() and state like 'idle in trans%%'"
    system.until(lambda: not system.sql(open_ones), "Postgres has rolled it back")
    assert not system.sql("select id from effects union all select effect_id from outbox")
    second = system.start("caller", ["tests.flow.caller", "order:w1"])
    assert second.wait() == 0
    effect_id = second.text().strip()
    system.settles(effect_id)
    system.oracle.check()
    assert (system.charged(lost), system.charged(effect_id)) == (0, 1)


def test_w2_what_was_committed_while_no_relay_ran_is_found_by_the_next_one(system: System) -> None:
    effect_id = system.charge(receipt="w2@example.test")
    assert system.outbox(effect_id)["road"] == "fresh"  # type: ignore[index]
    system.relay()
    system.worker()
    system.settles(effect_id)
    system.oracle.check()


def test_w3_a_relay_killed_between_its_claim_and_its_publish_only_delays(
    system: System, valkey_wire: ValkeyWire
) -> None:
    effect_id = system.charge()
    with valkey_wire.frozen():
        # The kernel takes the connection, the server never answers its greeting: nothing can have been published.
        relay = system.relay()
        system.until(lambda: system.outbox(effect_id)["road"] == "published", "the relay has claimed the row")  # type: ignore[index]
        relay.kill()
    assert valkey_wire.waiting("charge") == 0
    system.relay()
    system.worker()
    system.settles(effect_id)
    system.oracle.check()


def test_w4_a_message_that_was_lost_is_published_again(system: System, valkey_wire: ValkeyWire) -> None:
    system.relay()
    effect_id = system.charge()
    system.until(lambda: valkey_wire.waiting("charge"), "the message is in the broker")
    valkey_wire.empty()
    system.worker()
    system.settles(effect_id)
    system.oracle.check()
    assert system.facts(effect_id).count("claimed") == 1


def test_w4_a_message_that_comes_twenty_times_charges_once(system: System, valkey_wire: ValkeyWire) -> None:
    system.relay()
    effect_id = system.charge()
    system.until(lambda: valkey_wire.waiting("charge"), "the message is in the broker")
    [message] = valkey_wire.copies("charge")
    valkey_wire.push("charge", *[message] * 20)
    system.worker()
    system.worker()
    system.settles(effect_id)
    system.until(valkey_wire.idle, "all copies were taken")
    system.oracle.check()
    assert system.effect(effect_id)["attempt"] == 1
    assert len(system.asked(effect_id, "create")) == len(system.asked(effect_id, "confirm")) == 1


def test_w4_a_message_that_arrives_after_the_end_does_nothing(system: System, valkey_wire: ValkeyWire) -> None:
    system.relay()
    effect_id = system.charge()
    system.until(lambda: valkey_wire.waiting("charge"), "the message is in the broker")
    [message] = valkey_wire.copies("charge")
    system.worker()
    system.settles(effect_id)
    before = system.facts(effect_id)
    valkey_wire.push("charge", message)
    system.until(valkey_wire.idle, "the late copy was taken")
    system.settles(system.charge())
    assert system.facts(effect_id) == before
    system.oracle.check()


def test_w5_a_worker_killed_with_a_message_it_has_not_claimed(system: System) -> None:
    effect_id = system.charge()
    with system.locked(effect_id) as lock:
        system.relay()
        worker = system.worker()
        lock.reached()
        worker.kill()
        lock.forget_waiters()
    assert system.facts(effect_id) == ["accepted"]
    system.worker()
    system.settles(effect_id)
    system.oracle.check()
    assert system.effect(effect_id)["attempt"] == 1


def test_w6_a_worker_killed_after_its_claim_with_nothing_sent(system: System) -> None:
    effect_id = system.charge()
    with _unreachable() as port:
        system.relay()
        worker = system.worker(STRIPE_API_BASE=f"http://127.0.0.1:{port}")
        system.reaches(effect_id, "executing")
        worker.kill()
    assert system.facts(effect_id) == ["accepted", "claimed"]
    assert not system.asked(effect_id, "create")
    system.worker()
    system.settles(effect_id)
    system.oracle.check()


def test_w7_a_worker_killed_while_the_provider_has_the_request_and_not_acted_yet(system: System) -> None:
    effect_id = system.charge(receipt="w7@example.test")
    with system.held("confirm", effect_id, when="before") as barrier:
        system.relay()
        worker = system.worker()
        barrier.reached()
        worker.kill()
        assert system.charged(effect_id) == 0
    system.worker()
    system.settles(effect_id)
    system.oracle.check()
    assert system.charged(effect_id) == 1


def test_w8_a_worker_killed_when_the_card_is_charged_and_the_answer_not_read(system: System) -> None:
    effect_id = system.charge(receipt="w8@example.test")
    with system.held("confirm", effect_id, when="after") as barrier:
        system.relay()
        worker = system.worker()
        barrier.reached()
        assert system.charged(effect_id) == 1
        worker.kill()
    system.worker()
    system.settles(effect_id)
    system.oracle.check()
    assert system.charged(effect_id) == 1


def test_w8_answer_lost_after_charge_is_settled_by_the_same_key(system: System) -> None:
    system.stripe.fault("close_after", route="confirm")
    effect_id = system.charge(receipt="w8b@example.test")
    system.relay()
    system.worker()
    system.reaches(effect_id, "unknown")
    assert system.charged(effect_id) == 1
    system.settles(effect_id)
    system.oracle.check()
    assert "unknown" in system.facts(effect_id)


def test_w8_answer_lost_after_create_is_asked_for_again_under_the_same_key(system: System) -> None:
    system.stripe.fault("close_after", route="create")
    effect_id = system.charge()
    system.relay()
    system.worker()
    system.settles(effect_id)
    system.oracle.check()
    first, second = system.asked(effect_id, "create")
    assert first["idempotency_key"] == second["idempotency_key"]
    assert second["replayed"]


def test_w9_a_worker_killed_with_the_answer_in_its_hands(system: System) -> None:
    effect_id = system.charge(receipt="w9@example.test")
    with system.held("confirm", effect_id, when="after") as barrier:
        system.relay()
        worker = system.worker()
        barrier.reached()
        with system.locked(effect_id) as lock:
            barrier.release()
            lock.reached()
            worker.kill()
            lock.forget_waiters()
    assert system.state(effect_id) == "executing"
    assert system.charged(effect_id) == 1
    system.worker()
    system.settles(effect_id)
    system.oracle.check()


def test_w10_a_worker_killed_between_the_settlement_and_the_acknowledgement(system: System) -> None:
    done, stuck = system.charges(2)
    with system.held("create", stuck) as barrier:
        system.relay()
        worker = system.worker()
        barrier.reached()
        system.reaches(done, "succeeded")  # its message also names the other one, so it is not acknowledged yet
        worker.kill()
    system.worker()
    system.settles(done, stuck)
    system.oracle.check()
    assert system.facts(done).count("claimed") == 1
    assert system.facts(stuck).count("claimed") == 2


def test_w11_a_worker_killed_when_the_intent_is_created_and_its_id_not_committed(system: System) -> None:
    effect_id = system.charge()
    with system.held("create", effect_id, when="after") as barrier:
        system.relay()
        worker = system.worker()
        barrier.reached()
        with system.locked(effect_id) as lock:
            barrier.release()
            lock.reached()
            worker.kill()
            lock.forget_waiters()
    assert system.effect(effect_id)["progress"] == {}
    system.worker()
    system.settles(effect_id)
    system.oracle.check()
    assert [row["replayed"] for row in system.asked(effect_id, "create")] == [False, True]


def test_w11_a_worker_killed_when_the_intent_is_committed_and_not_confirmed(system: System) -> None:
    effect_id = system.charge()
    with system.held("confirm", effect_id, when="before") as barrier:
        system.relay()
        worker = system.worker()
        barrier.reached()
        worker.kill()
        system.stripe.kill()  # with the request in its hands: it was never confirmed
    system.stripe.start()
    intent = system.effect(effect_id)["progress"]["payment_intent"]
    system.worker()
    system.settles(effect_id)
    books = system.oracle.check()
    assert books.money_of[effect_id][0]["payment_intent"] == intent
    assert len(system.asked(effect_id, "create")) == 1


def test_w8_a_provider_killed_with_the_money_moved_is_asked_again_when_it_is_back(system: System) -> None:
    system.stripe.fault("crash", route="confirm", when="after")
    effect_id = system.charge()
    system.relay()
    system.worker()
    assert system.stripe.wait_dead() == -signal.SIGKILL
    system.stripe.start()
    system.settles(effect_id)
    system.oracle.check()


@contextmanager
def _unreachable() -> Iterator[int]:
    """The port of a server whose waiting room is full: a connection is neither made nor refused."""
    with socket.socket() as server, socket.socket() as guest, socket.socket() as another:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for visitor in (guest, another):
            visitor.setblocking(False)
            visitor.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])
