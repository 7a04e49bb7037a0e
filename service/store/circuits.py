"""Circuits: whether a provider answers at all, counted over all workers in one row a provider.

Closed: effects are claimed. Open, after so many failures in a row: none is claimed before `probe_at`; then exactly one
may be, and what comes of it closes the circuit or makes the next probe wait longer. Only the kinds that have failed
are concerned, so a kind that still works goes on, and its success closes the circuit for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

PROBE_SECONDS = 1.0  # after the opening: a provider that only hiccuped is back by then
PROBE_MAX_SECONDS = 30.0  # so long after a recovery nobody knows of it; one call a provider is no burden
# What a provider may ask for by Retry-After. Longer than that nobody looks, and keys grow old (20 of 24 hours).
ASKED_MAX_SECONDS = 3600.0

# Between half and all of it, so that installations that lost the same provider do not knock together.
_WAIT = f"""
    make_interval(secs => greatest(least(:asked, {ASKED_MAX_SECONDS}),
        least({PROBE_MAX_SECONDS}, {PROBE_SECONDS} * power(2, least({{probes}}, 20))) * (0.5 + random() / 2)))
"""

_FAILED = text(f"""
insert into circuits as c (provider, kinds, failures, opened_at, probe_at, last_error)
values (:provider, array[cast(:kind as text)], 1, case when :threshold <= 1 then now() end,
        case when :threshold <= 1 then now() + {_WAIT.format(probes="0")} end, :error)
on conflict (provider) do update set
    kinds = case when c.failures = 0 then excluded.kinds when c.kinds @> excluded.kinds then c.kinds
                 else c.kinds || excluded.kinds end,
    failures = c.failures + 1, last_error = excluded.last_error,
    opened_at = coalesce(c.opened_at, case when c.failures + 1 >= :threshold then now() end),
    probe_at = case when c.opened_at is null and c.failures + 1 >= :threshold then now() + {_WAIT.format(probes="0")}
                    when c.opened_at is not null and :probe then now() + {_WAIT.format(probes="c.probes + 1")}
                    else c.probe_at end,
    probes = case when c.opened_at is not null and :probe then c.probes + 1 else c.probes end
-- Those that were under way when it opened fail as well, and say nothing new.
where c.opened_at is null or :probe or not c.kinds @> excluded.kinds
returning failures, opened_at is not distinct from now() as opened
""")

_ANSWERED = text("""
with was as (
    select provider, opened_at from circuits where provider = :provider and (failures > 0 or opened_at is not null)
    for update
)
update circuits c set failures = 0, opened_at = null, probe_at = null, probes = 0 from was
where c.provider = was.provider
returning extract(epoch from now() - was.opened_at)::float8 as open_seconds
""")

# One winner: whoever waited for the row finds `probe_at` pushed ahead. A prober that dies delays the next one by that.
_PROBE = text("""
update circuits set probe_at = now() + make_interval(secs => :seconds)
where provider = :provider and opened_at is not null and probe_at <= now() returning provider
""")

_AGAIN = text(f"""
update circuits set probe_at = least(probe_at, now() + interval '{PROBE_SECONDS} seconds')
where provider = :provider and opened_at is not null
""")

_STANDING = text("""
select provider, kinds, failures, probes, last_error,
       extract(epoch from now() - opened_at)::float8 as open_seconds,
       extract(epoch from probe_at - now())::float8 as probe_seconds
from circuits order by provider
""")


@dataclass(frozen=True, slots=True)
class Circuit:
    """One provider: `open_seconds` and `probe_seconds` (until the next probe, below 0: now) are None while closed."""

    provider: str
    kinds: tuple[str, ...]
    failures: int
    open_seconds: float | None = None
    probe_seconds: float | None = None
    probes: int = 0
    last_error: str | None = None

    @property
    def open(self) -> bool:
        """Whether effects of its kinds wait."""
        return self.open_seconds is not None

    def holds(self, kind: str) -> bool:
        """Whether effects of this kind wait."""
        return self.open and kind in self.kinds


def failed(
    connection: Connection, provider: str, kind: str, error: str, *, threshold: int, probe: bool, asked: float = 0.0
) -> bool:
    """One more failure in a row; True when it opened the circuit. `asked`: the provider's Retry-After."""
    given = {"provider": provider, "kind": kind, "error": error, "threshold": threshold}
    row = connection.execute(_FAILED, {**given, "probe": probe, "asked": asked}).one_or_none()
    return bool(row and row.opened)


def answered(connection: Connection, provider: str) -> float | None:
    """The provider answers; for how many seconds the circuit was open when this closed it."""
    row = connection.execute(_ANSWERED, {"provider": provider}).one_or_none()
    return None if row is None or row.open_seconds is None else float(row.open_seconds)


def probe(connection: Connection, provider: str, *, seconds: float) -> bool:
    """Whether the caller is the one who may try now; nobody else may for `seconds`."""
    return connection.execute(_PROBE, {"provider": provider, "seconds": seconds}).one_or_none() is not None


def probe_again(connection: Connection, provider: str) -> None:
    """A probe told nothing about the provider: another one, soon."""
    connection.execute(_AGAIN, {"provider": provider})


def standing(connection: Connection) -> list[Circuit]:
    """Every provider that has failed once, as it stands now."""
    rows = connection.execute(_STANDING).all()
    return [
        Circuit(r.provider, tuple(r.kinds), r.failures, r.open_seconds, r.probe_seconds, r.probes, r.last_error)
        for r in rows
    ]
