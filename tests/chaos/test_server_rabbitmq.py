"""RabbitMQ is killed, loses queues, gives up messages, stands still or takes no more: time passes, and nothing else (W4)."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from kombu import Connection

from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.chaos.servers.rabbitmq import Rabbit, rabbit
from tests.flow.brokers import NO_RABBIT
from tests.flow.waiting import age
from tests.flow.wires import RabbitWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.slow,
    pytest.mark.rabbitmq,
    pytest.mark.skipif(shutil.which("rabbitmq-server") is None, reason=NO_RABBIT),
]
ALARM, CALM = "0.00001", "0.4"
DELIVERY_LIMIT = 10


@pytest.fixture(scope="module")
def node() -> Iterator[Rabbit]:
    with rabbit() as made:
        yield made


@pytest.fixture
def own_wire(node: Rabbit) -> RabbitWire:
    wire = RabbitWire(node.url)
    wire.empty()
    return wire


def test_a_node_killed_under_load_and_started_again(
    house: House, node: Rabbit, own_wire: RabbitWire, database: str
) -> None:
    trial = house(database, own_wire)
    trial.begin()
    for n in (8, 24):
        trial.load.reaches(n)
        node.kill()
        trial.system.until(lambda: trial.relays[0].lines("outage"), "the relay has noticed")
        node.start()
    trial.judged("rabbitmq killed", rabbitmq_killed=2)
    assert {program.code for program in (*trial.relays, *trial.workers)} == {None}


def test_queues_that_are_deleted_under_load_are_made_again(house: House, own_wire: RabbitWire, database: str) -> None:
    trial = house(database, own_wire)
    trial.begin()
    for n in (5, 15, 25, 35):
        trial.load.reaches(n)
        own_wire.empty()
    trial.judged("queues deleted", queues_deleted=4)


def test_a_message_that_is_given_up_comes_again_from_the_outbox(
    house: House, own_wire: RabbitWire, database: str
) -> None:
    """What kills its consumer each time is redelivered so often and then set aside; its effects are not."""
    trial = house(database, own_wire)
    system = trial.system
    system.relay()
    effect_ids = system.charges(3)
    system.until(lambda: own_wire.waiting("charge"), "the message is in the queue")
    refused = 0
    with Connection(own_wire.url) as connection:
        channel = connection.channel()
        while message := channel.basic_get("charge"):
            channel.basic_reject(message.delivery_tag, requeue=True)
            refused += 1
            assert refused < 100
        system.until(lambda: channel.queue_declare("counterfoil.dead", passive=True).message_count, "it is set aside")
    assert refused > DELIVERY_LIMIT
    system.worker()
    system.settles(*effect_ids)
    assert {system.effect(effect_id)["attempt"] for effect_id in effect_ids} == {1}
    trial.judged("delivery limit", messages_given_up=1)


def test_a_node_that_takes_no_more_is_an_outage_and_the_doctor_says_so(
    house: House, node: Rabbit, own_wire: RabbitWire, database: str
) -> None:
    """A memory alarm: it answers every question, and whoever publishes is blocked without a word."""
    trial = house(database, own_wire)
    trial.begin()
    trial.load.reaches(10)
    node.ctl("set_vm_memory_high_watermark", ALARM)
    try:
        trial.system.charge(receipt="alarm@example.test")
        trial.system.until(lambda: trial.relays[0].lines("outage"), "the relay says that it takes nothing")
        check = trial.doctor()["broker"]
        assert not check["ok"]
        assert "memory" in check["found"]
    finally:
        node.ctl("set_vm_memory_high_watermark", CALM)
    trial.judged("memory alarm", memory_alarm=1)
    assert [line["event"] for line in trial.relays[0].lines("outage")] == ["outage", "outage_over"]


def test_a_node_that_stands_still_for_longer_than_a_lease(
    house: House, node: Rabbit, own_wire: RabbitWire, database: str
) -> None:
    trial = house(database, own_wire)
    trial.begin()
    trial.load.reaches(10)
    node.pause(signal.SIGSTOP)
    try:
        trial.system.until(age(float(trial.system.settings["LEASE"]) + 2), "every lease is over")
    finally:
        with suppress(ProcessLookupError):
            node.pause(signal.SIGCONT)
    trial.judged("rabbitmq frozen", rabbitmq_frozen=1)
