"""What goes on around the workers: callers, relays, the broker, time, the bank, webhooks and persons.

Time is ideal and coarse. A lease ends only under a paused or dead worker. Three ticks are long: past our horizon, the
provider's forgetting (hours after the horizon), and the hour between two looks. The last two are longer than a lease,
than a connection may idle and than a request may travel, so no live lease, idle connection or request outlasts them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.model import decisions as d
from tests.model.provider import lands, seen
from tests.model.world import IDLE, ILLEGAL, Marks, Provider, Row, Worker, World

Moves = list[tuple[str, World]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the world is. `fair`, for liveness: losing a message is one of finitely many faults, and a budget is
    spent sooner or later; for safety both may happen at any time.
    """

    workers: int = 3
    messages: int = 2
    faults: int = 3
    fair: bool = False


# With these guards in force a former owner can only be refused, except for what it has sent or is about to send.
_TIDY = frozenset({"fence", "lease_check", "fenced_record", "progress_first", "final_guard"})


class Surroundings:
    """Everything that happens to an effect without a worker, and what all actions are made of."""

    def __init__(self, kind: d.Kind, bounds: Bounds, *, removed: frozenset[str], tidy: bool) -> None:
        self.kind, self.bounds, self.removed = kind, bounds, removed
        self.tidies = tidy and not removed & _TIDY
        self.moves: set[tuple[str, str]] = set()

    def has(self, guard: str) -> bool:
        """Whether a guard is in force."""
        return guard not in self.removed

    def initial(self) -> World:
        workers = (IDLE,) * self.bounds.workers
        return World(Row(), Provider(), (), 0, self.bounds.faults, Marks(), workers)

    def canonical(self, world: World) -> World:
        return world.manned(tuple(sorted(world.workers)))

    # --- callers, relays, the broker ---------------------------------------------------------------------------------

    def _caller(self, w: World, out: Moves) -> None:
        if w.row.state == "none":
            out.append(("caller commits", w._replace(row=Row("pending", road="due"))))
        elif w.row.state in ("pending", "succeeded"):
            # The unique key answers with the effect that exists; without it, a second row is accepted.
            twin = w.marks.twin if self.has("unique_key") else max(w.marks.twin, 1)
            out.append(("caller repeats the key", w._replace(marks=w.marks._replace(twin=twin))))
        if w.marks.twin == 1:
            done = w.provider._replace(money=w.provider.money + 1)
            marks = w.marks._replace(twin=2)
            out.append(("second row is carried out", w._replace(provider=done, marks=marks)))

    def _relay(self, w: World, out: Moves) -> None:
        row = w.row
        if row.road == "due" and w.messages < self.bounds.messages:
            # Published again and again while unsettled; back-off and redelivery are just times at which it happens.
            kept = row if self.has("row_until_settled") else row._replace(road="gone")
            out.append(("relay publishes", w._replace(row=kept, messages=w.messages + 1)))
        if row.road == "due" and row.state == "executing" and not row.leased:
            doubt = 1 if self.has("doubt_on_lost_lease") else row.doubt
            out.append(("relay marks the lost lease", self._moved(w, "unknown", doubt=doubt)))
        if w.messages and (w.faults or not self.bounds.fair):
            after = self._fault(w) if self.bounds.fair else w
            out.append(("!message is lost", after._replace(messages=w.messages - 1)))

    # --- time --------------------------------------------------------------------------------------------------------

    def _time(self, w: World, out: Moves) -> None:
        row, clock = w.row, w.provider.clock
        if row.leased:
            alive = any(worker.owner and worker.step != "idle" for worker in w.workers)
            if not alive:
                out.append(("lease of a dead worker ends", w._replace(row=row._replace(leased=0))))
            elif w.faults:
                out.append(("!worker pauses beyond its lease", self._fault(w)._replace(row=row._replace(leased=0))))
        if not self.kind.keyed or not (row.sent or not self.has("sent_first")):
            pass
        elif clock == 0:
            out.append(("horizon passes", w._replace(provider=w.provider._replace(clock=1))))
            if not self.has("keys_kept") and not row.leased:
                out.append(("provider forgets the keys early", self._later(w, forget=True)))
        elif clock == 1 and not row.leased:
            out.append(("provider forgets the keys", self._later(w, forget=True)))
        if 1 in (row.missed, row.looked) and not row.leased:
            older = row._replace(missed=2 if row.missed else 0, looked=2 if row.looked else 0)
            out.append(("an hour passes", self._later(w._replace(row=older))))

    def _later(self, w: World, *, forget: bool = False) -> World:
        """Hours later: what was in flight has landed or is gone, idle connections are closed."""
        provider = w.provider
        if forget:
            clock = 2 if provider.clock == 1 else provider.clock
            provider = provider._replace(clock=clock, created=0, key=None)
        gone = set()
        if self.has("idle_connections_close") and self.has("connect_first"):
            gone.add("ready")
        if self.has("requests_land_soon"):
            gone.add("sent")
        net = () if self.has("requests_land_soon") else w.net
        workers = tuple(self._cut(worker) if worker.step in gone else worker for worker in w.workers)
        return w._replace(provider=provider, net=net, workers=workers)

    def _cut(self, worker: Worker) -> Worker:
        """Its connection is dead: whether anything went out it cannot tell."""
        return worker._replace(step="told", told=d.NO_ANSWER) if worker.owner or not self.tidies else IDLE

    # --- the provider, beyond what a worker waits for ----------------------------------------------------------------

    def _elsewhere(self, w: World, out: Moves) -> None:
        for item in w.net:
            rest = list(w.net)
            rest.remove(item)
            for name, _, provider, fault in lands(self, w.provider, item, faults=w.faults):
                landed = w._replace(provider=provider, net=tuple(rest), faults=w.faults - fault)
                out.append((f"{'!' if fault else ''}late request lands: {name}", landed))
        for number, status in enumerate(w.provider.intents, 1):
            if status == "processing":
                for result in ("succeeded", "declined"):
                    out.append((f"bank answers: {result}", w._replace(provider=_banked(w.provider, number, result))))
            if w.row.state in ("unknown", "awaiting"):
                self._webhook(w, number, status, out)
        if self.kind.asked == "exact" and w.provider.money and w.row.state == "unknown":
            out.append(("~verify finds it: succeeded", self._moved(w, "succeeded")))

    def _webhook(self, w: World, number: int, status: str, out: Moves) -> None:
        """An event makes us ask for the object it names; what that says counts, not the event."""
        to = {"succeeded": "succeeded", "declined": "failed", "processing": "awaiting"}.get(status)
        if to and w.row.state != to:
            out.append((f"~webhook: {to}", self._moved(w, to, doubt=0)))
        elif not to and w.row.state == "unknown" and not w.row.progress:
            # W11 healed from outside: the id that a lost answer would have told.
            out.append(("~webhook names an intent: adopted", w._replace(row=w.row._replace(progress=number))))

    # --- persons -----------------------------------------------------------------------------------------------------

    def _person(self, w: World, out: Moves) -> None:
        row, found = w.row, seen(w)
        twice = row.looked == 2 or not self.has("person_looks_twice")
        if w.faults:  # a replay counts as a disturbance: only finitely many
            doubt = row.doubt if self.has("doubt_survives_replay") else 0
            again = self._moved(self._fault(w), "pending", doubt=doubt, road="due")
            out.append(("?person replays", again))
        if found == "done":
            flagged = w._replace(marks=w.marks._replace(flagged=1))  # a person has counted the copies
            out.append(("?person finds it: succeeded", self._moved(flagged, "succeeded")))
        elif found == "nothing" and twice:
            out.append(("?person finds nothing, twice: failed", self._moved(w, "failed")))
            if w.faults:
                # The person takes the proof back on purpose, so "absent" is no promise any more.
                free = self._fault(w)._replace(marks=w.marks._replace(absent=0))
                out.append(
                    ("?person finds nothing, twice: released", self._moved(free, "pending", doubt=0, road="due"))
                )
        elif found == "nothing" and not row.looked:
            out.append(("?person finds nothing", w._replace(row=row._replace(looked=1))))

    # --- what the actions are made of --------------------------------------------------------------------------------

    def _moved(self, w: World, to: str, *, doubt: int | None = None, road: str | None = None) -> World:
        """Every change of state goes through here, and through the product's table."""
        row, marks = w.row, w.marks
        self.moves.add((row.state, to))
        if (row.state, to) not in d.LEGAL:
            marks = marks._replace(broken=marks.broken | ILLEGAL)
        if to == "succeeded":
            marks = marks._replace(ledger=min(marks.ledger + 1, 2))
        if to in d.FINAL:
            # The duty goes in the same commit; messages that are still about find nothing, so they are not counted.
            row, w = row._replace(road="gone", doubt=0, missed=0, looked=0), w._replace(messages=0)
        else:
            usual = "parked" if to == "parked" else row.road if row.road == "gone" else "due"
            row = row._replace(road=road or usual, doubt=row.doubt if doubt is None else doubt)
        return w._replace(row=row._replace(state=to, leased=0, looked=0), marks=marks)

    def _worker(self, w: World, i: int, worker: Worker) -> World:
        return w.manned((*w.workers[:i], worker, *w.workers[i + 1 :]))

    def _tell(self, w: World, i: int, worker: Worker, told: str) -> World:
        return self._worker(w, i, worker._replace(step="told", told=told))

    def _left(self, w: World, i: int, worker: Worker) -> World:
        """A worker is gone; what it had sent is still on its way."""
        if worker.step == "sent":
            w = w._replace(net=self._net([*w.net, item_of(self.kind, worker)]))
        return self._worker(w, i, IDLE)

    def _net(self, items: list[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
        """Under one stable key the second copy of a request changes nothing that the first has not."""
        same = self.kind.keyed and self.has("stable_key")
        return tuple(sorted(set(items))) if same else tuple(sorted(items))

    def _lease_over(self, w: World, worker: Worker) -> bool:
        return self.has("lease_check") and not (worker.owner and w.row.leased)

    def _may_record(self, w: World, worker: Worker) -> bool:
        return bool(worker.owner and w.row.leased) or not self.has("fenced_record")

    def _fault(self, w: World) -> World:
        return w._replace(faults=w.faults - 1)

    def _broke(self, w: World, what: int) -> World:
        return w._replace(marks=w.marks._replace(broken=w.marks.broken | what))


def item_of(kind: d.Kind, worker: Worker) -> tuple[str, int]:
    """The request a worker sends, or is about to."""
    if kind.steps == 1:
        return "send", worker.known if not kind.keyed else 0
    return ("confirm", worker.known) if worker.known else ("create", 0)


def _banked(provider: Provider, number: int, result: str) -> Provider:
    intents = (*provider.intents[: number - 1], result, *provider.intents[number:])
    return provider._replace(intents=intents, money=provider.money + (result == "succeeded"))
