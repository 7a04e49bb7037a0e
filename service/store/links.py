"""Links: an effect that acts upon another one begins when that one is far enough, and at once then.

A refund never begins before its charge is final, a capture never before the money is held. Who waits stands in the
outbox and says so; waiting spends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

# An effect that acts upon another one begins when that one is far enough (never a refund before its charge succeeded).
# One that has begun goes on whatever became of the other: its key must be sent again inside the horizon.
READY = """
    (e.concerns is null or e.state <> 'pending' or exists (select 1 from effects t where t.id = e.concerns and (
        t.state in ('succeeded', 'failed')
        or (e.ready_when = 'authorised' and t.state = 'awaiting' and t.outcome ->> 'status' = 'requires_capture'))))
"""
# Delivered too early: it comes due again by itself, and at once when what it waits for is ready (`wake`). It was not
# tried, so the delivery does not count. If that one became ready meanwhile, its wake has changed the road or waits for
# this row, so that the later of the two, which knows more, has the last word.
_HOLD_BACK = text(f"""
with early as (
    select o.effect_id from outbox o join effects e on e.id = o.effect_id
    where o.effect_id = any(cast(:ids as uuid[])) and e.state = 'pending' and o.road = 'published' and not {READY}
    order by o.effect_id for update of o
)
update outbox o set road = 'later', deliveries = 0, available_at = now() + make_interval(secs => :seconds),
    last_error = 'waits for the effect it concerns'
from early w where o.effect_id = w.effect_id
returning cast(o.effect_id as text)
""")

# What waited for one of these and may begin now. A crash before it costs a wait: held back, they look again themselves.
_WAKE = text(f"""
with waiting as (
    select o.effect_id from outbox o join effects e on e.id = o.effect_id
    where e.concerns = any(cast(:ids as uuid[])) and e.state = 'pending' and o.road in ('later', 'published')
      and (e.not_before is null or e.not_before <= now()) and {READY}
    order by o.effect_id for update of o
)
update outbox o set road = 'later', available_at = now() from waiting w where o.effect_id = w.effect_id
""")

# Captured or cancelled: the charge that waits for it is asked after at once.
_ASK = text("""
with held as (
    select t.id from effects t where t.state = 'awaiting'
      and t.id = any(select d.concerns from effects d where d.id = any(cast(:ids as uuid[])))
    order by t.id for no key update
), concerned as (
    update effects t set not_before = null from held h where t.id = h.id returning t.id
)
update outbox o set road = 'later', available_at = now()
from concerned c where o.effect_id = c.id and o.road in ('later', 'published')
""")


def hold_back(connection: Connection, ids: Sequence[str], *, seconds: float) -> list[str]:
    """Let those of `ids` that wait for another effect come due again in `seconds`; return them."""
    return list(connection.execute(_HOLD_BACK, {"ids": list(ids), "seconds": seconds}).scalars())


def wake(connection: Connection, ids: Sequence[str]) -> None:
    """These have been settled: what waited for them comes due now, and what they acted upon is asked after now."""
    for statement in (_WAKE, _ASK):
        connection.execute(statement, {"ids": list(ids)})
