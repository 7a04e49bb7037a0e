"""Which programs `up` runs, in which order, with which environment, and how each says that it is ready."""

from __future__ import annotations

import http.client
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli import talk
from service.cli.supervisor import Program
from service.core.errors import SetupError
from service.embedded import port as ports

if TYPE_CHECKING:
    from service.settings import Settings

PROBE_SECONDS = 2.0
_COMMANDS = ("api", "relay", "worker", "beat")
FAKE_KEY = "sk_test_fake"


def programs(settings: Settings, wanted: Sequence[str], *, human: bool) -> list[Program]:
    """The programs of `wanted`, providers first. Fakes take the place of providers that are not configured."""
    fakes, env = _fakes(settings, wanted)
    if human and settings.log_format == "auto":
        env["COUNTERFOIL_LOG_FORMAT"] = "console"  # our terminal, though the programs write into a pipe
    port = settings.api_port or ports.settle(settings.state_dir / "api.port")
    env["COUNTERFOIL_API_PORT"] = str(port)
    probes = {"api": lambda: _answers_ready(settings.api_host, port)}
    chosen = [name for name in _COMMANDS if name in wanted]
    if "api" in chosen:
        talk.say(f"the API is at http://{settings.api_host}:{port}")
    own = [Program(name, [sys.executable, "-m", "service", name], env, ready=probes.get(name)) for name in chosen]
    return [*fakes, *own]


def _fakes(settings: Settings, wanted: Sequence[str]) -> tuple[list[Program], dict[str, str]]:
    """The fakes that are needed, and the environment that leads to them."""
    made: list[Program] = []
    env: dict[str, str] = {}
    if settings.stripe_api_key is None and "stripe" in wanted:
        port = _port(settings, "stripe")
        made.append(_fake(settings, "stripe", ["--port", str(port)], port))
        env |= {"COUNTERFOIL_STRIPE_API_KEY": FAKE_KEY, "COUNTERFOIL_STRIPE_API_BASE": f"http://127.0.0.1:{port}"}
    if settings.email_url is None and "mail" in wanted:
        smtp, http_ = _port(settings, "smtp"), _port(settings, "mail")
        made.append(_fake(settings, "mail", ["--smtp-port", str(smtp), "--http-port", str(http_)], http_))
        # The keyed door: over SMTP nobody could promise exactly once.
        env["COUNTERFOIL_EMAIL_URL"] = f"resend+http://re_fake@127.0.0.1:{http_}"
    if made:
        names = " and ".join(program.name for program in made)
        talk.say(
            f"FAKE PROVIDERS: {names}. No money moves and no letter leaves this machine; "
            "set COUNTERFOIL_STRIPE_API_KEY and COUNTERFOIL_EMAIL_URL for real ones",
            style="bold yellow",
        )
    return made, env


def _fake(settings: Settings, kind: str, options: Sequence[str], port: int) -> Program:
    if find_spec("fakes") is None or find_spec("aiosmtpd") is None:
        raise SetupError(
            "the fake providers are not installed here: set COUNTERFOIL_STRIPE_API_KEY and COUNTERFOIL_EMAIL_URL, "
            "or install requirements/dev.txt"
        )
    state = _folder(settings) / kind
    argv = [sys.executable, "-m", "fakes", kind, "--state", str(state), *options]
    return Program(kind, argv, ready=_listening(port))


def _folder(settings: Settings) -> Path:
    folder = settings.state_dir.resolve() / "fakes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _port(settings: Settings, name: str) -> int:
    """The same from one start to the next, so that a restarted fake is found where it was."""
    return ports.settle(_folder(settings) / f"{name}.port")


def _listening(port: int) -> Callable[[], bool]:
    def probe() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS).close()
        except OSError:
            return False
        return True

    return probe


def _answers_ready(host: str, port: int) -> bool:
    # A server that listens on every address is asked at the nearest one.
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(near, port, timeout=2 * PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
