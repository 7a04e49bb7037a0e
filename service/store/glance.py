"""What a relay wants to know before it takes: one question, so that an idle relay costs next to nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from service.store.outbox import SECONDS_UNTIL_DUE

# In flight is counted through a partial index that holds only these rows: it costs what is in flight, never what waits.
_GLANCE = text(f"""
select exists (select from operations where state = 'running') as driving,
       (select coalesce(array_agg(name) filter (where paused_at is not null), '{{}}') from lanes) as paused,
       exists (select from lanes l where l.paused_at is null
               and exists (select from outbox where road = 'held' and lane = l.name)) as releasable,
       (select count(*) from outbox where road = 'published' and available_at > now()) as in_flight,
       ({SECONDS_UNTIL_DUE}) as due
""")


@dataclass(frozen=True, slots=True)
class Glance:
    """How things are with operations, lanes and the outbox.

    `driving`: an operation runs. `paused`: lanes. `releasable`: a resumed lane still holds rows. `in_flight`: rows that
    are published and not due again, which the window limits. `due`: seconds until a row comes due, None without any.
    """

    driving: bool
    paused: frozenset[str]
    releasable: bool
    in_flight: int
    due: float | None


def glance(connection: Connection) -> Glance:
    """How things are now."""
    row = connection.execute(_GLANCE).one()
    return Glance(row.driving, frozenset(row.paused), row.releasable, int(row.in_flight), row.due)
