"""The wire keeps its few promises: everything arrives or is said not to, and nothing that arrives can hurt."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from kombu import Connection, Queue

from service import settings
from service.broker.app import App, create_app
from service.broker.messages import Message, read_effect_ids
from service.broker.publish import Publisher
from service.broker.queues import DEAD, DELIVERY_LIMIT
from service.core.errors import DependencyUnavailable, SettingsError
from tests.flow import brokers
from tests.flow.brokers import wait_for

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
SECRETS = ("4242424242424242", "ada@example.com", "sk_test_abcdefghijklmnop", brokers.PASSWORD, "payload-of-a-stranger")

needs_rabbitmq = (
    pytest.mark.rabbitmq,
    pytest.mark.skipif(shutil.which("rabbitmq-server") is None, reason=brokers.NO_RABBIT),
)


def on_rabbitmq(test: Callable[..., None]) -> Callable[..., None]:
    for mark in needs_rabbitmq:
        test = mark(test)
    return test


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[str]:
    with brokers.rabbitmq() as url:
        yield url


@pytest.fixture
def valkey() -> Iterator[brokers.Valkey]:
    with brokers.valkey() as server:
        yield server


@pytest.fixture
def app(settings_from: Callable[..., Any]) -> Callable[..., App]:
    """An app of this process for one broker."""
    return lambda url, **more: create_app(settings_from(broker_url=url, **more))


class Worker:
    """A real `celery worker` process and what it wrote."""

    def __init__(self, url: str, folder: Path, *flags: str) -> None:
        self.notes = folder / "notes"
        self._log = folder / "worker.log"
        environment = {
            **os.environ, "COUNTERFOIL_BROKER_URL": url, "COUNTERFOIL_LOG_FORMAT": "json", "WIRE_NOTES": str(self.notes)
        }  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-q", "-A", "tests.flow.wire_app", "worker", *flags],
                cwd=ROOT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [line for line in found if event in line["event"]]

    def noted(self, word: str) -> set[str]:
        text = self.notes.read_text() if self.notes.exists() else ""
        return {line.split()[1] for line in text.splitlines() if line.startswith(word) and " " in line}

    def stop_politely(self) -> None:
        """An idle worker obeys SIGTERM at once, not when some timer happens to wake it."""
        since = monotonic()
        self.process.terminate()
        assert self.process.wait(15) == 0
        assert monotonic() - since < 8

    def go(self) -> None:
        self.notes.with_suffix(".go").touch()


@contextmanager
def worker(url: str, folder: Path, *flags: str) -> Iterator[Worker]:
    running = Worker(url, folder, *flags)
    try:
        wait_for(lambda: running.lines(" ready.") or running.process.poll() is not None, what="the worker is ready")
        yield running
        assert not running.process.poll(), "the worker lives, or ended as it was told to"
    finally:
        running.go()
        running.process.terminate()
        try:
            running.process.wait(15)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
        print(running.text()[-6000:])


def ids(count: int) -> tuple[str, ...]:
    return tuple(str(uuid.uuid4()) for _ in range(count))


def one(lane: str = "charge") -> Message:
    return Message(lane, lane, ids(1))


@pytest.mark.parametrize(
    ("broker", "pool"),
    [("valkey", "threads"), ("valkey", "gevent"), pytest.param("rabbitmq", "prefork", marks=needs_rabbitmq)],
)
def test_every_published_effect_reaches_a_worker(
    broker: str, pool: str, request: pytest.FixtureRequest, app: Callable[..., App], tmp_path: Path
) -> None:
    server = request.getfixturevalue(broker)
    url = server if isinstance(server, str) else server.url
    messages = [Message("charge", "charge", ids(8)) for _ in range(50)]
    # gevent on Redis takes as many messages as it has slots, then waits two seconds (Celery's synloop).
    slots = "50" if pool == "gevent" else "2"
    with worker(url, tmp_path, "-P", pool, "-c", slots) as running, Publisher(app(url)) as publisher:
        publisher.publish(messages)
        wanted = {effect_id for message in messages for effect_id in message.effect_ids}
        wait_for(lambda: running.noted("done") == wanted, what="all ids arrive")
        running.stop_politely()
    assert brokers.PASSWORD not in running.text()


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_busy_worker_survives_a_broker_that_restarts(
    pool: str, valkey: brokers.Valkey, app: Callable[..., App], tmp_path: Path
) -> None:
    busy, after = one("email"), one("charge")
    with worker(valkey.url, tmp_path, "-P", pool, "-c", "2") as running, Publisher(app(valkey.url)) as publisher:
        publisher.publish([busy])
        wait_for(lambda: running.noted("began"), what="the task runs")
        valkey.stop()
        wait_for(lambda: "rying again in" in running.text(), what="the worker noticed")
        valkey.start()
        publisher.ping()
        publisher.publish([after])
        wait_for(lambda: set(after.effect_ids) <= running.noted("done"), what="the worker consumes again")
        running.go()
        wait_for(lambda: set(busy.effect_ids) <= running.noted("done"), what="the surviving task ends")


def envelope(body: Any, **headers: Any) -> str:
    """A list item as kombu writes it, around any body."""
    text = body if isinstance(body, str) else json.dumps(body)
    return json.dumps(
        {
            "body": base64.b64encode(text.encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": "charge", "id": "x", "retries": 0, **headers},
            "properties": {
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": "", "routing_key": "charge"},
                "body_encoding": "base64",
                "correlation_id": "x",
                "delivery_mode": 2,
                "reply_to": "",
            },
        }
    )


STRANGE_BODIES: list[tuple[Any, dict[str, Any]]] = [
    (7, {}),
    ("payload-of-a-stranger", {}),
    ("[" * 100_000, {}),
    ([[], {}], {}),
    ([[], [], {}], {}),
    ({"args": 7}, {}),
    ([[], {"payload-of-a-stranger": "sk_test_abcdefghijklmnop"}, None], {"task": "nobody.knows"}),
    ([[], {}, None], {"task": ["charge"]}),
    ([[], {}, None], {"task": "sk_test_abcdefghijklmnop 4242424242424242"}),
    ([[], {}, None], {"id": None}),
    ([[], {}, None], {"eta": "yesterday"}),
    ([[], {}, None], {"expires": 7}),
    ([[], {}, None], {"timelimit": "soon"}),
    ([[], {}, None], {"retries": "many"}),
    ([[], {}, {"callbacks": [{"task": "charge"}]}], {}),
]
STRANGE_ITEMS: list[str | bytes] = [
    b"\xff\xfe\x00",
    "",
    "payload-of-a-stranger",
    "{}",
    "[]",
    "7",
    "null",
    "[" * 200_000,
    '{"a":' * 20_000,
    json.dumps({"body": "e30=", "headers": {}, "properties": {}}),
    json.dumps({"body": "e30=", "headers": None, "properties": {"delivery_tag": "x", "delivery_info": None}}),
    json.dumps({**json.loads(envelope([[], {}, None])), "body": "***"}),
    json.dumps({**json.loads(envelope([[], {}, None])), "body": {}}),
    json.dumps({**json.loads(envelope([[], {}, None])), "content-type": "application/x-python-serialize"}),
    "x" * 5_000_000,
    envelope(["x" * 5_000_000]),
]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_what_a_stranger_pushes_is_dropped_with_one_line_each_and_work_goes_on(
    pool: str, valkey: brokers.Valkey, app: Callable[..., App], tmp_path: Path
) -> None:
    strange = [*STRANGE_ITEMS, *(envelope(body, **headers) for body, headers in STRANGE_BODIES)]
    good = one()
    with worker(valkey.url, tmp_path, "-P", pool, "-c", "2") as running, Publisher(app(valkey.url)) as publisher:
        with valkey.client() as client:
            for item in strange:
                client.lpush("charge", item)
        publisher.publish([good])
        wait_for(lambda: set(good.effect_ids) <= running.noted("done"), what="the good message runs")
        dropped = running.lines("message_dropped")
        assert len(dropped) == len(strange), [line["reason"] for line in dropped]
        with valkey.client() as client:
            wait_for(lambda: not client.hlen("unacked"), what="nothing strange is kept")
    assert max(map(len, running.text().splitlines())) < 1_000
    assert not [secret for secret in SECRETS if secret in running.text()]


@on_rabbitmq
def test_what_a_stranger_publishes_to_rabbitmq_becomes_a_dead_letter(
    rabbitmq: str, app: Callable[..., App], tmp_path: Path
) -> None:
    good = one()
    with worker(rabbitmq, tmp_path, "-P", "threads", "-c", "2") as running, Publisher(app(rabbitmq)) as publisher:
        before = dead_letters(rabbitmq)
        with Connection(rabbitmq) as connection:
            producer = connection.Producer()
            for body, headers in STRANGE_BODIES:
                producer.publish(
                    body if isinstance(body, str) else json.dumps(body),
                    routing_key="charge",
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers={"task": "charge", "id": "x", "retries": 0, **headers},
                )
            producer.publish(b"payload-of-a-stranger", routing_key="charge", content_type="image/png")
            producer.publish({"payload-of-a-stranger": 1}, routing_key="charge", serializer="pickle")
        publisher.publish([good])
        wait_for(lambda: set(good.effect_ids) <= running.noted("done"), what="the good message runs")
        count = len(STRANGE_BODIES) + 2
        assert len(running.lines("message_dropped")) == count
        wait_for(lambda: dead_letters(rabbitmq) == before + count, what="they are kept as evidence")
    assert not [secret for secret in SECRETS if secret in running.text()]


def dead_letters(url: str) -> int:
    with Connection(url) as connection:
        found = connection.default_channel.queue_declare(DEAD, passive=True)
        return int(found.message_count)


@on_rabbitmq
def test_a_message_that_keeps_killing_its_worker_becomes_a_dead_letter(rabbitmq: str, app: Callable[..., App]) -> None:
    with Publisher(app(rabbitmq, lanes="poison")) as publisher:
        publisher.publish([one("poison")])
        before, tries = dead_letters(rabbitmq), []

        def returned_unread() -> bool:
            with Connection(rabbitmq) as connection:  # a connection that dies with the message, as a worker would
                message = Queue("poison", channel=connection.default_channel).get()
                if message is not None:
                    tries.append(message.delivery_info)
                    message.requeue()
            return dead_letters(rabbitmq) > before

        wait_for(returned_unread, what="the broker gives it up")
    assert len(tries) == DELIVERY_LIMIT + 1


@on_rabbitmq
def test_w4_a_message_that_cannot_be_routed_is_an_error_and_the_next_publish_heals(
    rabbitmq: str, app: Callable[..., App]
) -> None:
    with Publisher(app(rabbitmq, lanes="vanishing")) as publisher:
        publisher.publish([one("vanishing")])
        with Connection(rabbitmq) as connection:
            connection.default_channel.queue_delete("vanishing")
        with pytest.raises(DependencyUnavailable, match="does not exist"):
            publisher.publish([one("vanishing")])
        publisher.publish([one("vanishing")])


def test_a_broker_that_is_away_is_an_error_in_bounded_time_and_its_return_is_noticed(
    valkey: brokers.Valkey, app: Callable[..., App]
) -> None:
    with Publisher(app(valkey.url)) as publisher:
        publisher.publish([one()])
        valkey.stop()
        for call in (lambda: publisher.publish([one()]), publisher.ping):
            since = monotonic()
            with pytest.raises(DependencyUnavailable, match=f"127.0.0.1:{valkey.port}") as raised:
                call()
            assert monotonic() - since < 2
            assert valkey.password not in str(raised.value)
        valkey.start()
        publisher.ping()
        publisher.publish([one()])
        with valkey.client() as client:
            assert client.llen("charge") == 1


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_accepts_and_never_answers_holds_the_relay_for_seconds_only(
    scheme: str, app: Callable[..., App]
) -> None:
    with brokers.black_hole() as port, Publisher(app(f"{scheme}://user:open-sesame@127.0.0.1:{port}/0")) as publisher:
        since = monotonic()
        with pytest.raises(DependencyUnavailable) as raised:
            publisher.publish([one()])
        assert monotonic() - since < 12
        assert "open-sesame" not in str(raised.value)


def test_a_wrong_password_is_told_apart_from_an_absent_broker(valkey: brokers.Valkey, app: Callable[..., App]) -> None:
    url = valkey.url.replace(brokers.PASSWORD, "close-sesame")
    with Publisher(app(url)) as publisher, pytest.raises(DependencyUnavailable, match="user or password") as raised:
        publisher.ping()
    assert "sesame" not in str(raised.value)


def test_a_sentinel_leads_to_its_master(valkey: brokers.Valkey, app: Callable[..., App], tmp_path: Path) -> None:
    message = one()
    with brokers.sentinel(valkey) as url:
        with worker(url, tmp_path, "-P", "threads", "-c", "2") as running, Publisher(app(url)) as publisher:
            with valkey.client() as client:
                client.lpush("charge", "{}")
            publisher.publish([message])
            wait_for(lambda: running.noted("done") == set(message.effect_ids), what="the message runs")
            assert len(running.lines("message_dropped")) == 1
        with pytest.raises(SettingsError, match="append"):
            app(url.partition("?")[0]).address()


def test_the_wire_carries_ids_and_nothing_else(valkey: brokers.Valkey, app: Callable[..., App]) -> None:
    message = Message("charge", "charge", ids(2))
    with Publisher(app(valkey.url)) as publisher, valkey.client() as client:
        publisher.publish([message])
        written = json.loads(client.lindex("charge", 0))
    golden = json.loads((GOLDEN / "effect_ids.json").read_text())
    args, kwargs, embed = json.loads(base64.b64decode(written["body"]))
    assert (args, kwargs) == ([], {"effect_ids": list(message.effect_ids)})
    assert not any(embed.values())
    # Keys and constant values are the wire format; ids, the tag and the writer's name change.
    assert written["headers"].keys() == golden["headers"].keys()
    same = (
        "task",
        "lang",
        "argsrepr",
        "kwargsrepr",
        "counterfoil-version",
        "eta",
        "expires",
        "retries",
        "ignore_result",
    )
    assert {k: written["headers"][k] for k in same} == {k: golden["headers"][k] for k in same}
    assert written["properties"].keys() == golden["properties"].keys()


def test_messages_of_every_version_still_run(valkey: brokers.Valkey, tmp_path: Path) -> None:
    files = sorted(GOLDEN.glob("*.json"))
    wanted = set()
    with worker(valkey.url, tmp_path, "-P", "threads", "-c", "2") as running, valkey.client() as client:
        for file in files:
            text = file.read_text()
            args, kwargs, _ = json.loads(base64.b64decode(json.loads(text)["body"]))
            wanted |= set(read_effect_ids(args, kwargs))
            client.lpush("charge", text)
        wait_for(lambda: running.noted("done") == wanted, what="old and new messages run")
    assert len(files) >= 3


def test_a_traceback_in_a_worker_names_no_card_no_address_and_no_key(valkey: brokers.Valkey, tmp_path: Path) -> None:
    with worker(valkey.url, tmp_path, "-P", "threads", "-c", "1") as running, valkey.client() as client:
        client.lpush("charge", envelope([[], {}, None], task="raises", id=str(uuid.uuid4())))
        wait_for(lambda: running.lines("raised unexpected"), what="the traceback is logged")
        [line] = running.lines("raised unexpected")
        assert line["level"] == "error"
        assert "in raises" in line["exception"]
    assert not [secret for secret in SECRETS if secret in running.text()]


def test_making_the_app_needs_no_broker(settings_from: Callable[..., Any]) -> None:
    app = create_app(settings_from(state_dir="/nonexistent"))
    assert list(app.amqp.queues) == ["charge", "email", "periodic"]
    with pytest.raises(SettingsError, match="COUNTERFOIL_BROKER_URL"):
        app.connection_for_write()
    assert settings.load().broker_url is None
