"""The superuser of embedded servers that run here, for what their own login may not do: make other logins.

Whoever may read the password beside the data directory owns it; nobody else is let in, and a server that is not ours
has none here.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit

from service.embedded import address
from service.embedded.cluster import SUPERUSER, password_file
from service.embedded.postgres import Postgres


def url(state_dir: Path, database_url: str) -> str | None:
    """`database_url` with the superuser's login; None when it is no running server of this directory, or not ours."""
    running = address.running(state_dir)
    if running is None or running.database_url != database_url:
        return None
    try:
        word = password_file(state_dir / Postgres.name, SUPERUSER).read_text().strip()
    except OSError:
        return None
    parts = urlsplit(database_url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{SUPERUSER}:{quote(word, safe='')}@{place}").geturl()
