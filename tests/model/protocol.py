"""The protocol as guarded atomic actions over one effect, with callers, relays, workers, persons and the provider.

Each action is what one commit, one send or one event at the provider does; between any two of them anything else may
happen. Names say who is at it: `!` is a fault (there is a budget of them), `?` a person, `~` a webhook; nothing relies
on those. All others are fair: what stays possible happens in the end.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.model import decisions as d
from tests.model.provider import lands
from tests.model.surroundings import Bounds, Moves, Surroundings, item_of
from tests.model.world import IDLE, LATE, ZOMBIE, Worker, World


class Protocol(Surroundings):
    """One kind of effect under the guards in force; implements `checker.System`.

    Tidying: when an attempt loses its effect, whatever it could still do that is refused without a trace (a write
    with an old number, a send without a lease) is skipped at once. Those actions lead to the state in which the
    worker is idle and nothing else has changed, they are never switched off and switch nothing else off, so
    taking them first loses no state that a property could tell apart. Only done while the guards that refuse are in force;
    a test compares the verdicts with and without.
    """

    def __init__(
        self, kind: d.Kind, bounds: Bounds, *, removed: frozenset[str] = frozenset(), tidy: bool = True
    ) -> None:
        super().__init__(kind, bounds, removed=removed, tidy=tidy)
        self.steps: dict[str, Callable[[World, int, Worker, Moves], None]] = {
            "claimed": self._claimed,
            "ready": self._ready,
            "sent": self._sent,
            "found": self._found,
            "missed": self._missed,
            "unmark": self._unmark,
            "told": self._told,
        }

    def successors(self, w: World) -> Moves:
        """Every action that can happen now."""
        out: Moves = []
        self._caller(w, out)
        self._relay(w, out)
        self._time(w, out)
        self._elsewhere(w, out)
        if w.row.state == "parked":
            self._person(w, out)
        seen_: set[Worker] = set()
        for i, worker in enumerate(w.workers):
            if worker in seen_:  # what equal workers can do differs only in names
                continue
            seen_.add(worker)
            if worker.step == "idle":
                if w.messages:
                    self._message(w, i, out)
                continue
            self.steps[worker.step](w, i, worker, out)
            # A former owner that dies does less than one that is paused for ever.
            if worker.owner and w.faults:
                out.append(("!worker dies", self._left(self._fault(w), i, worker)))
        return out

    # --- workers -----------------------------------------------------------------------------------------------------

    def _message(self, w: World, i: int, out: Moves) -> None:
        row = w.row
        w = w._replace(messages=w.messages - 1)
        lost = row.state == "executing"
        rests = row.state in ("pending", "unknown", "awaiting") and not (
            row.missed == 1 and self.has("second_look_waits")
        )
        if not (rests or (lost and not row.leased)):
            out.append(("message finds nothing to do", w))
            return
        prior = "unknown" if lost else row.state
        doubt = int(row.doubt or (lost and self.has("doubt_on_lost_lease")))
        self._spent(w, doubt, out)
        if lost:
            w = self._moved(w, "unknown")  # the table: a lost lease passes through `unknown`
        w = self._moved(w, "executing", doubt=doubt)
        w = w._replace(row=w.row._replace(leased=1, sent=int(self.has("sent_first"))))
        w = self._fenced(w)
        out.append(("worker claims", self._worker(w, i, Worker("claimed", 1, prior, doubt, row.progress))))

    def _spent(self, w: World, doubt: int, out: Moves) -> None:
        """Attempts and patience are finite, so a person gets it in the end; where only safety is asked, at any time."""
        fair = self.bounds.fair
        if w.row.state == "awaiting" or not (fair or w.faults) or not self.has("attempt_budget"):
            return
        parked = self._moved(w if fair else self._fault(w), "parked", doubt=doubt, road="parked")
        out.append((f"{'' if fair else '!'}budget is spent: parked", parked))

    def _fenced(self, w: World) -> World:
        """Every earlier attempt has lost its effect."""
        workers, net = [], list(w.net)
        for worker in w.workers:
            if not self.tidies or worker.step == "idle":
                workers.append(worker._replace(owner=0))
                continue
            if worker.step == "ready":
                workers.append(Worker("ready", 0, doubt=worker.doubt, known=worker.known))
                continue
            if worker.step == "sent":
                net.append(item_of(self.kind, worker))
            workers.append(IDLE)
        return w._replace(workers=tuple(workers), net=self._net(net))

    def _claimed(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """From the claim to the open connection, the hold's check, and what it lets through."""
        if not self.kind.keyed:
            self._blind(w, i, worker, out)
            return
        known = self.kind.steps == 2 and worker.known
        says = d.may_send(
            doubt=bool(worker.doubt),
            past_horizon=bool(w.provider.clock and w.row.sent and not known and self.has("horizon_check")),
            lease_over=self._lease_over(w, worker),
            keyed=not known,
        )
        if says == "lease lost":
            out.append(("worker finds its lease over", self._tell(w, i, worker, d.LEASE_LOST)))
        elif says == "horizon passed":
            self._look_up(w, i, worker, out)
        elif known:
            self._retrieve(w, i, worker, out)
        else:
            if worker.prior == "pending" and not worker.doubt and self.has("misses_forgotten"):
                # A fresh send: what was looked for before says nothing about this one.
                w = w._replace(row=w.row._replace(missed=0)) if self._may_record(w, worker) else w
            out.append(("worker may send", self._worker(w, i, worker._replace(step="ready"))))

    def _retrieve(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        status = w.provider.intents[worker.known - 1]
        if status == "created":
            again = int(worker.doubt or worker.prior != "pending")
            ready = worker._replace(step="ready", again=again)
            out.append(("worker retrieves: unconfirmed", self._worker(w, i, ready)))
        else:
            told = d.learned(self.kind, "retrieve", _ANSWER[status], 0)
            out.append((f"worker retrieves: {status}", self._tell(w, i, worker, told)))

    def _look_up(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """Past the horizon: look, never send."""
        kind, money = self.kind, w.provider.money
        absent = d.ABSENT_HARMLESS if kind.steps == 2 else d.ABSENT
        if kind.asked is None:
            out.append(("horizon passed: nobody to ask", self._tell(w, i, worker, d.KEY_EXPIRED)))
            return
        if not self.has("look_up"):
            out.append(("horizon passed: taken for absent", self._tell(w, i, worker, absent)))
            return
        for number, status in enumerate(w.provider.intents, 1):
            if status == "created":
                out.append(("look-up hits an intent", self._worker(w, i, worker._replace(step="found", known=number))))
            else:
                told = d.learned(kind, "retrieve", _ANSWER[status], 0)
                out.append((f"look-up hits: {status}", self._tell(w, i, worker, told)))
        if kind.steps == 1 and money:
            out.append(("look-up hits", self._tell(w, i, worker, d.SUCCEEDED)))
        if kind.asked == "exact" and money and self.has("exact_look_up"):
            return
        missed = w.row.missed
        if missed == 2 or not self.has("two_misses") or (missed and not self.has("spaced_misses")):
            out.append(("look-up misses again: absent", self._tell(w, i, worker, absent)))
        elif missed:
            out.append(("look-up misses too soon", self._tell(w, i, worker, d.NOT_FOUND)))
        else:
            out.append(("look-up misses", self._worker(w, i, worker._replace(step="missed"))))

    def _missed(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        if self._may_record(w, worker):
            recorded = w._replace(row=w.row._replace(missed=1))
            out.append(("worker records the miss", self._tell(recorded, i, worker, d.NOT_FOUND)))
        else:
            out.append(("record is refused", self._tell(w, i, worker, d.LEASE_LOST)))

    def _found(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """W11: the intent's id is committed, and only then confirmed."""
        ready = worker._replace(step="ready")
        if not self.has("progress_first"):
            # Straight to the confirm's own check.
            if self._lease_over(w, worker):
                out.append(("worker finds its lease over", self._tell(w, i, worker, d.LEASE_LOST)))
            else:
                out.append(("worker goes on unrecorded", self._worker(w, i, ready)))
        elif self._may_record(w, worker):
            w = w._replace(row=w.row._replace(progress=worker.known, missed=0))
            if self._lease_over(w, worker):
                out.append(("worker records, its lease over", self._tell(w, i, worker, d.LEASE_LOST)))
            else:
                out.append(("worker records the intent", self._worker(w, i, ready)))
        else:
            out.append(("record is refused", self._tell(w, i, worker, d.LEASE_LOST)))

    def _blind(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """The marker, committed right before the final dot."""
        once = self.kind.policy is d.Policy.AT_MOST_ONCE and self.has("blind_policy")
        if worker.known and (once or (worker.known >= d.SENDS_MAX and self.has("copies_limit"))):
            out.append(("copies are used up", self._tell(w, i, worker, d.BLIND_UNKNOWN)))
            return
        if self.has("marker_before_dot"):
            if not self._may_record(w, worker):
                out.append(("record is refused", self._tell(w, i, worker, d.LEASE_LOST)))
                return
            w = w._replace(row=w.row._replace(progress=min(worker.known + 1, d.SENDS_MAX)))
        elif self._lease_over(w, worker):
            out.append(("worker finds its lease over", self._tell(w, i, worker, d.LEASE_LOST)))
            return
        out.append(("worker marks the dot and may send", self._worker(w, i, worker._replace(step="ready"))))

    def _unmark(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """The server refused this dot: the next attempt owes it no doubt."""
        told = d.learned(self.kind, "send", d.FRONT, 0)
        if self._may_record(w, worker):
            w = w._replace(row=w.row._replace(progress=worker.known))
            out.append(("worker takes the mark back", self._tell(w, i, worker, told)))
        else:
            out.append(("record is refused", self._tell(w, i, worker, d.LEASE_LOST)))

    def _ready(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """The guard has passed; any pause may fall before the first byte."""
        name = "worker confirms" if item_of(self.kind, worker)[0] == "confirm" else "worker sends"
        if name == "worker sends" and worker.doubt and w.provider.clock == 2:
            w = self._broke(w, LATE)
        if self.tidies and not worker.owner:
            # Nobody reads the answer of a former owner but the fence: the request is on its own at once.
            w = w._replace(net=self._net([*w.net, item_of(self.kind, worker)]))
            out.append((f"former {name}", self._worker(w, i, IDLE)))
        else:
            out.append((name, self._worker(w, i, worker._replace(step="sent"))))

    def _sent(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        for name, answer, provider, fault in lands(self, w.provider, item_of(self.kind, worker), faults=w.faults):
            after = w._replace(provider=provider, faults=w.faults - fault)
            label = f"{'!' if fault else ''}provider answers: {name}"
            out.append((label, self._answered(after, i, worker, answer)))
            if answer == d.ERROR_AGAIN:
                self._look_after(after, i, worker, out)
        if w.faults and worker.owner:
            lost = self._fault(w)._replace(net=self._net([*w.net, item_of(self.kind, worker)]))
            out.append(("!answer does not come in time", self._answered(lost, i, worker, d.SILENCE)))

    def _look_after(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """A repeated 500 will never say more: what it has left is looked for, and adopted when it is there."""
        if self.kind.asked == "exact" and w.provider.money:
            out.append(("look-up after a repeated 500 hits", self._tell(w, i, worker, d.SUCCEEDED)))
        elif self.kind.steps == 2 and not worker.known:
            for number, status in enumerate(w.provider.intents, 1):
                if status == "created":
                    found = self._worker(w, i, worker._replace(step="found", known=number))
                    out.append(("look-up after a repeated 500 hits an intent", found))

    def _answered(self, w: World, i: int, worker: Worker, answer: str) -> World:
        step, known = item_of(self.kind, worker)
        if answer.startswith("intent "):
            return self._worker(w, i, worker._replace(step="found", known=int(answer[-1])))
        if answer.startswith("look "):  # "cannot be confirmed": the intent itself knows
            return self._tell(w, i, worker, d.learned(self.kind, "retrieve", answer[5:], 0))
        if answer == "mismatch":
            return self._tell(w, i, worker, d.MISMATCH)
        if answer == d.FRONT and not self.kind.keyed:
            return self._worker(w, i, worker._replace(step="unmark"))
        doubt = worker.again if step == "confirm" else int(worker.doubt or worker.prior != "pending")
        doubt = doubt if self.kind.keyed else int(known > 0)
        return self._tell(w, i, worker, d.learned(self.kind, step, answer, doubt * self.has("own_answers_only")))

    def _told(self, w: World, i: int, worker: Worker, out: Moves) -> None:
        """Settle, if the attempt still owns the effect (I9)."""
        to, doubt = self._settlement(worker)
        row = w.row
        owned = worker.owner or not self.has("fence")
        forward = row.state in ("unknown", "parked") and to in d.FINAL
        if not owned or not (row.state == "executing" or forward or not self.has("final_guard")):
            out.append(("late answer stays a fact", self._worker(w, i, IDLE)))
            return
        name = f"worker settles{' late' if row.state != 'executing' else ''}: {to} ({worker.told})"
        absent = worker.told in (d.ABSENT, d.ABSENT_HARMLESS)
        if to == "succeeded" and not self.kind.keyed and worker.known:
            w = w._replace(marks=w.marks._replace(flagged=1))
        if absent and to == "parked":
            w = w._replace(marks=w.marks._replace(absent=1))
        w = self._moved(w, to, doubt=doubt)
        w = w if worker.owner else self._broke(w, ZOMBIE)
        out.append((name, self._worker(w, i, IDLE)))

    def _settlement(self, worker: Worker) -> tuple[str, int]:
        kind = self.kind if self.has("blind_policy") else d.TWICE
        to, doubt = d.settled(kind, worker.prior, worker.doubt, worker.told)
        if worker.told.startswith("deferred") and not self.has("front_restores"):
            return "pending", 0
        return to, doubt


_ANSWER = {"succeeded": d.DONE, "declined": d.DECLINED, "processing": d.WAITS, "created": d.CREATED}
