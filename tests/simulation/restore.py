"""A database that goes back in time: what it has forgotten stands at the provider all the same.

The gate claims nothing, a person runs the product's own recovery, perhaps more than once because it dies on the way,
and callers repeat what they are not sure of. What the recovery reads and writes is written by hand after
`store.incarnation`, `store.recovery` and `store.orphans`; tests/store and tests/chaos show that the SQL does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from service.core.keys import dedupe_hash
from service.engine import recover
from service.engine.recover import Known, Orphan, Quarantine, Standing
from service.providers.mail.smtp import SENDS_MAX
from service.store.recovery import ATTEMPT_STEP
from tests.model.decisions import FINAL
from tests.simulation import nemesis as n
from tests.simulation.database import LIMITS, Row
from tests.simulation.hub import WALL_SECONDS, Killed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.world import World

SETTINGS: Any = SimpleNamespace(lease=LIMITS.lease, provider_deadline=20.0)
_NOTES = {"charge": "payment_intent", "refund": "refund"}


def at(seconds: float) -> datetime:
    """Virtual time as a moment."""
    return datetime.fromtimestamp(WALL_SECONDS + seconds, UTC)


# --- how it comes to that --------------------------------------------------------------------------------------------


def may_come(w: World) -> None:
    """A backup is taken early on, and perhaps restored while effects are still under way."""
    if n.RESTORED in w.nemesis.chance:
        w.hub.at(600.0 * w.random.random() ** 2, _backup, w)


def _backup(w: World) -> None:
    kept = {row.id: row.copied() for row in w.database.rows.values()}
    lost = w.nemesis.span() if w.random.random() < 0.4 else 300.0 * w.random.random() ** 2
    w.hub.at(lost, _goes_back, (w, kept, w.database.began_at))


def _goes_back(given: tuple[World, dict[str, tuple[Any, ...]], float]) -> None:
    w, kept, began_at = given
    if not w.nemesis.left or not w.nemesis.fired(n.RESTORED):
        return
    database = w.database
    forgotten = [row for row in database.rows.values() if row.id not in kept]
    for row in forgotten:
        del database.rows[row.id]
        w.hits["forgotten by the database"] += 1
    for id_, values in kept.items():
        database.rows[id_].become(values)
    if database.trace is not None:
        database.trace.append(f"{w.hub.now:12.1f}  ** forgotten: {[row.id for row in forgotten]}")
    database.began_at, database.left_at = began_at, w.hub.now
    database.closed, database.quarantined_at, database.lives = True, None, database.lives + 1
    _spare(w, forgotten)
    for row in forgotten:
        if row.caused_by is None and w.random.random() < 0.85:
            w.hub.at(w.nemesis.span() * w.random.random(), _repeats, (w, row))
    w.hub.at(LIMITS.lease + w.nemesis.span() * w.random.random(), _comes, w)
    w.due(0.0)


def _spare(w: World, forgotten: Sequence[Row]) -> None:
    """Letters are in no list that could be asked, so what was forgotten of them may come twice (docs/recover.md)."""
    for row in [*forgotten, *w.database.rows.values()]:
        if row.kind == "email" and (row in forgotten or row.policy == "at_least_once"):
            w.books.limits[row.dedupe_key] = w.books.limits.get(row.dedupe_key, 1) + SENDS_MAX + 1
            w.books.spared.add(row.dedupe_key)
        elif row.kind == "charge" and row.receipt:
            w.books.limits[f"{row.dedupe_key}r"] = 2 * (SENDS_MAX + 1)
            w.books.spared.add(f"{row.dedupe_key}r")


def _repeats(given: tuple[World, Row]) -> None:
    """The caller is not sure and says it again; what it acts upon has another id by now, if that was forgotten too."""
    w, row = given
    concerned = row.concerns
    if concerned is not None and concerned not in w.database.rows:
        name = w.database.ever[concerned].dedupe_key
        found = [other.id for other in w.database.rows.values() if other.dedupe_key == name]
        if not found:
            _repeats((w, w.database.ever[concerned]))
            found = [other.id for other in w.database.rows.values() if other.dedupe_key == name]
        if not found:
            return
        concerned = found[0]
    again = w.again(row, {**row.request, **({"charge": concerned} if concerned else {})})
    again.concerns, again.receipt, again.policy = concerned, row.receipt, row.policy
    w.accept_again(again)
    w.hits["repeated after the restore"] += 1


# --- the gate and the person who opens it ----------------------------------------------------------------------------


def _comes(w: World) -> None:
    if w.database.closed:
        w.hub.spawn(w.api, _recovers, w)


def _recovers(w: World) -> None:
    """`counterfoil recover --execute`; one that died is run again, a little later."""
    w.hub.at(3600.0, _comes, w)
    recover.execute(SETTINGS, since=None, actor="person", reason="INC-42", tell=lambda _: None, sleep=w.hub.sleep)
    w.hits["recovered and released"] += 1
    if w.database.trace is not None:
        w.database.trace.append(f"{w.hub.now:12.1f}  ** recovered and released")


class Store:
    """What `engine.recover` finds where the store's modules stand. One world at a time is plugged in."""

    world: World

    @contextmanager
    def connected(self) -> Iterator[None]:
        """A transaction; the recovery may die before it."""
        w = self.world
        w.hub.sleep(0.05)
        if w.nemesis.fires(n.RECOVERY_DIES):
            raise Killed
        yield

    def standing(self, _settings: object) -> Standing:
        return Standing(open=not self.world.database.closed, reason="restored")

    # incarnation

    def may_release(self, _: object) -> None:
        """Here the person may."""

    def quarantine(self, _: object, _reason: str) -> None:
        self.world.database.quarantine()

    def quarantined(self, _: object) -> Quarantine | None:
        database = self.world.database
        begun = database.quarantined_at
        if not database.closed or begun is None:
            return None
        return Quarantine(database.lives, at(begun), "restored", database.last_fact, self.world.hub.now - begun)

    def release(self, _: object, id_: int, **_counts: object) -> bool:
        database = self.world.database
        if not database.closed or id_ != database.lives:
            return False
        database.closed = False
        self.world.due(0.0)
        return True

    # recovery

    def known_until(self, _: object) -> datetime:
        claims = [row.begun_at for row in self.world.database.rows.values() if row.begun_at is not None]
        return at(max(claims) if claims else self.world.database.began_at)

    def doubt(self, _: object, *, last_fact: int, actor: str) -> int:  # noqa: ARG002 - as the store says it
        return sum(self.world.database.doubt(row, ATTEMPT_STEP, last_fact) for row in self.world.database.rows.values())

    def known(self, _: object, ids: Sequence[str]) -> Mapping[str, Known]:
        rows = self.world.database.rows
        return {id_: _known(rows[id_]) for id_ in ids if id_ in rows}

    def point(self, _: object, id_: str, *, name: str, ref: str, actor: str) -> bool:  # noqa: ARG002 - the same
        row = self.world.database.rows[id_]
        if row.state in FINAL or row.progress.get(name) is not None:
            return False
        row.in_doubt, row.progress[name] = True, ref
        row.first_sent_at = row.created_at if row.first_sent_at is None else row.first_sent_at
        self.world.hits["pointed to its object"] += 1
        return True

    # orphans and breaks

    def keep(self, _: object, orphan: Orphan, *, incarnation: int) -> bool:  # noqa: ARG002 - the same
        known = self.world.database.orphans
        if orphan.provider_ref in known:
            return False
        taken = any(one.hash == orphan.dedupe_hash and one.adopted_by is None for one in known.values())
        sent_at = orphan.created_at.timestamp() - WALL_SECONDS
        found = {_NOTES[orphan.kind]: orphan.provider_ref, "effect_id": orphan.effect_id}
        hash_ = None if taken else orphan.dedupe_hash
        known[orphan.provider_ref] = SimpleNamespace(hash=hash_, found=found, sent_at=sent_at, adopted_by=None)
        self.world.hits["orphan found"] += 1
        return True

    def adopted_among(self, _: object, _provider: str, refs: Sequence[str]) -> set[str]:
        known = self.world.database.orphans
        return {ref for ref in refs if ref in known and known[ref].adopted_by}

    def open(self, _: object, class_: str, subject: str, **_told: object) -> None:
        self.world.hits[f"break: {class_}"] += 1
        self.world.database.breaks.add((class_, subject))


def _known(row: Row) -> Known:
    noted = row.progress.get("refund" if row.kind == "refund" else "payment_intent")
    amount = None if row.kind == "email" else row.request["amount"]
    return Known(row.id, row.kind, row.state, row.provider_ref or noted, amount, row.request.get("currency"))


def name_of(row: Row) -> str:
    """As the provider knows it."""
    return dedupe_hash("t", row.kind, row.dedupe_key)
