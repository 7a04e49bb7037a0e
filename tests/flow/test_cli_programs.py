"""The command's programs as real processes: relay, worker, beat and up run until a stop signal and leave cleanly."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.embedded.servers import Servers
from tests.flow.doors import CHARGE, environment, wait_until
from tests.flow.terminal import Run, accepted, key, run, shell, url  # noqa: F401 - fixtures
from tests.server import Server


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Servers(tmp_path_factory.mktemp("broker"), postgres=False) as servers:
        assert servers.addresses.broker_url
        yield servers.addresses.broker_url


def started(*arguments: str, settings: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "service", *arguments],
            env=environment(**settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def stopped(process: subprocess.Popen[bytes], seconds: float = 40) -> int:
    try:
        process.send_signal(signal.SIGTERM)
        return process.wait(seconds)
    finally:
        process.kill()
        process.wait()


def test_the_relay_publishes_and_drains_on_a_stop_signal(
    run: Run, url: str, broker: str, key: str, tmp_path: Path
) -> None:
    effect_id = accepted(run, key)
    settings = {"database_url": url, "broker_url": broker, "log_format": "json"}
    process = started("relay", settings=settings, log=tmp_path / "log")

    def published() -> bool:
        return bool(json.loads(run("outbox", "show", effect_id, "--json").stdout)["deliveries"])

    try:
        wait_until(published)
    finally:
        code = stopped(process)
    assert code == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_worker_and_beat_run_until_a_stop_signal(url: str, broker: str, name: str, tmp_path: Path) -> None:
    settings = {"database_url": url, "broker_url": broker, "log_format": "json", "state_dir": str(tmp_path / "state")}
    log = tmp_path / "log"
    more = ["--concurrency", "2", "--queues", "charge"] if name == "worker" else []
    process = started(name, *more, settings=settings, log=log)

    def running() -> bool:
        # The file is the scheduler's; it is there before the first look at it is over.
        scheduled = any((tmp_path / "state").glob("beat-schedule*"))
        return scheduled if name == "beat" else "ready" in log.read_text()

    try:
        wait_until(lambda: running() or process.poll() is not None, seconds=40)
        assert process.poll() is None, log.read_text()
    finally:
        code = stopped(process)
    assert code == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


def test_up_runs_everything_and_drains(postgres: Server, broker: str, tmp_path: Path) -> None:
    with postgres.database() as name:
        settings = {
            "database_url": postgres.url_of(name),
            "broker_url": broker,
            "state_dir": str(tmp_path / "state"),
            "api_port": "0",
        }
        log = tmp_path / "log"
        process = started("up", settings=settings, log=log)
        try:
            wait_until(lambda: "celery@" in log.read_text() or process.poll() is not None, seconds=60)
            assert process.poll() is None, log.read_text()
            effect = _charged(int((tmp_path / "state" / "api.port").read_text()))
            assert effect["state"] == "succeeded", (effect, log.read_text())
        finally:
            code = stopped(process, 60)
        assert code == 0, log.read_text()
        assert "FAKE PROVIDERS" in log.read_text()
        assert not _children(process.pid)


def _charged(port: int) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "up:1", "Prefer": "wait=30"}
    connection.request("POST", "/v1/charges", json.dumps(CHARGE), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer.get("effect", answer)


def _children(pid: int) -> list[str]:
    """Processes that still name the one that is gone as their parent."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/status"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        if f"\nPPid:\t{pid}\n" in text:
            found.append(text.splitlines()[0])
    return found
