"""The peers' own Python environment: made once from pinned versions with hashes, in a cache folder, never in ours.

A version that can no longer be had does not stop the others: it is installed one by one then, and the table says who
is missing and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
ROOT = HERE.parents[1]
_PIP = ("-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r")


def interpreter(folder: Path | None = None) -> Path:
    """The Python of the environment, made first if need be; named after its lock, so that each lock has one."""
    place = folder or _cache() / f"peers-{sys.version_info.major}.{sys.version_info.minor}-{_mark()}"
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        print(f"setting up the peers' environment in {place} (once, a minute or so)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        if subprocess.run([python, *_PIP, str(REQUIREMENTS)], check=False).returncode:
            _one_by_one(python, place)
        (place / "ready").touch()
    return python


def versions(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of these packages; "" for one that is not there."""
    code = (
        "import json,sys\nfrom importlib.metadata import version, PackageNotFoundError\n"
        "def v(n):\n try: return version(n)\n except PackageNotFoundError: return ''\n"
        "print(json.dumps({n: v(n) for n in sys.argv[1:]}))"
    )
    told = subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(told))


def pinned() -> list[str]:
    """The requirements, one text each: the pin and its hashes."""
    found: list[str] = []
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        if line.startswith((" ", "#")):
            if found and line.startswith(" "):
                found[-1] += f"\n{line}"
        elif line:
            found.append(line)
    return found


def _one_by_one(python: Path, place: Path) -> None:
    for requirement in pinned():
        alone = place / "one.txt"
        alone.write_text(requirement + "\n", encoding="utf-8")
        if subprocess.run([python, *_PIP, str(alone)], check=False).returncode:
            print(f"could not be installed: {requirement.split()[0]}", file=sys.stderr)


def _mark() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "counterfoil"
