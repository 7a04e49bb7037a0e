"""Every guard of the code: what it keeps, where it stands, how it is taken out, and who must notice.

`model`, `simulation`, `faults`: its names in those layers' own registries. `story` is played with and without it
(tests/guards/books_without.py, wire_without.py); `flow` are tests on real processes, `chaos` among broken ones. A cell
is red when the layer notices that the guard is missing. What stands in the schema is enumerated from the catalogue
(tests/guards/schema.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.guards import books_without as b
from tests.guards import wire_without as w


@dataclass(frozen=True, slots=True)
class Guard:
    """`keeps`: invariants and crash windows. `out`: controls (tests/flow/controls) that take it out; `controls` others
    that processes are started with. `covered_by` names the guard that must be taken out as well before anybody notices,
    `cover_sql` and `cover_out` how.
    """

    name: str
    about: str
    keeps: str
    where: str
    model: str = ""
    simulation: str = ""
    faults: str = ""
    story: Callable[..., str] | None = None
    out: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    covered_by: str = ""
    cover_sql: tuple[str, ...] = ()
    cover_out: tuple[str, ...] = ()
    flow: tuple[str, ...] = ()
    chaos: tuple[str, ...] = ()


_NEGATIVE = "tests/flow/test_negative_controls.py::"
_CRASH = "tests/chaos/test_crash_points.py::"
_PROCESS = "tests/guards/test_processes_without_their_guard.py::"
_WIRE = "tests/chaos/test_wire_points.py::"
_NO_TRANSITION = "drop trigger effects_transition on effects"

ACCEPTING = (
    Guard(
        "unique key",
        "one row for each tenant, kind and dedupe key, for ever",
        "I1, W1",
        "effects_dedupe_key; store/effects.py _ACCEPT",
        model="unique_key",
        simulation="unique_key",
        story=b.same_key_twice,
        out=("no_conflict",),
        covered_by="constraint and statement for each other",
        cover_sql=("alter table effects drop constraint effects_dedupe_key",),
    ),
    Guard(
        "fingerprint compare",
        "the same key with another request is refused",
        "I4",
        "engine/accept.py _repeat",
        simulation="fingerprint",
        story=b.known_key_other_request,
        out=("no_compare",),
    ),
    Guard(
        "refund fits its charge",
        "a refund names a charge of its tenant and currency, and no more than its amount",
        "I3",
        "engine/accept.py _mismatch",
        story=b.refund_of_more_than_was_paid,
        out=("any_charge",),
    ),
)
CLAIMING = (
    Guard(
        "lease",
        "what a live attempt holds is not claimed",
        "I1, W4",
        "store/attempts.py _DUE",
        story=b.two_messages_at_once,
        out=("no_lease",),
    ),
    Guard(
        "not_before",
        "a message that comes before its time executes nothing",
        "W4",
        "store/attempts.py _DUE",
        story=b.effect_of_tomorrow,
        out=("no_time",),
        flow=(f"{_PROCESS}test_without_not_before_a_forged_message_charges_an_hour_early",),
    ),
    Guard(
        "kind in the claim",
        "a message of one task begins no effect of another",
        "I3",
        "store/attempts.py _CLAIM",
        story=b.cancel_that_names_a_capture,
        out=("any_kind",),
    ),
    Guard(
        "ready_when",
        "nothing begins before the effect that it acts upon is far enough",
        "order",
        "store/links.py READY",
        simulation="order_gate",
        faults="test_without_the_order_a_refund_runs_before_its_charge",
        story=b.refund_before_its_charge,
        out=("ready_at_once",),
        flow=(f"{_PROCESS}test_without_the_order_a_refund_is_sent_before_its_charge",),
    ),
    Guard(
        "parked stays",
        "what waits for a person is not begun by a message",
        "I2",
        "store/attempts.py _DUE",
        story=b.message_for_a_parked_effect,
        out=("parked_too",),
        covered_by="trigger effects_transition",
        cover_sql=(_NO_TRANSITION,),
    ),
    Guard(
        "attempt budget",
        "attempts and patience are finite: a person gets it in the end",
        "I2, I10",
        "store/attempts.py _SPENT, engine/settlement.py",
        model="attempt_budget",
        story=b.killer_message,
        out=("no_budget",),
    ),
    Guard(
        "first_sent_at before the send",
        "committed with the claim, before the first byte goes out",
        "I1, W6, W7",
        "store/attempts.py _CLAIM",
        model="sent_first",
        simulation="sent_first",
        story=b.first_claim,
        out=("sent_later",),
        covered_by="check effects_attempt",
        cover_sql=("alter table effects drop constraint effects_attempt",),
    ),
    Guard(
        "doubt after a lost lease",
        "who takes over from a dead attempt is in doubt",
        "I1, I5, W7",
        "store/attempts.py _CLAIM",
        model="doubt_on_lost_lease",
        simulation="doubt_on_lost_lease",
        story=b.worker_that_died_and_another,
        out=("no_doubt",),
    ),
    Guard(
        "a lost lease is unknown and in doubt",
        "the relay that finds it says so",
        "I5, W7",
        "store/outbox.py _LEASED_OUT",
        story=b.relay_that_finds_a_dead_worker,
        out=("certain_when_lost",),
        covered_by="check effects_doubt",
        cover_sql=("alter table effects drop constraint effects_doubt",),
    ),
    Guard(
        "claim gate",
        "a database that went back in time claims nothing",
        "I1",
        "store/incarnation.py GATE",
        simulation="gate",
        story=b.promoted_replica,
        out=("open_gate",),
        flow=(f"{_PROCESS}test_without_the_gate_a_database_of_another_life_charges",),
        controls=("no_gate",),
        chaos=("tests/chaos/test_restore_drill.py::test_without_the_gate_the_same_drill_charges_twice",),
    ),
    Guard(
        "watermark",
        "an older copy on the same timeline is told by what this host has seen",
        "I1",
        "store/incarnation.py _SEEN, store/watermark.py",
        story=b.older_copy,
        out=("no_watermark",),
    ),
    Guard(
        "adoption of orphans",
        "a repeated key goes on with the money that a forgotten effect has moved",
        "I1",
        "store/orphans.py OF_EFFECT",
        story=b.forgotten_charge,
        simulation="orphans",
        out=("nothing_adopted",),
    ),
)
SENDING = (
    Guard("lease check", "the hold refuses the first byte when the lease could end before the answer", "I1, I9, W6", "engine/hold.py", model="lease_check", simulation="lease_check"),
    Guard("horizon", "in doubt and past the horizon nothing is sent", "I1, W8", "engine/hold.py, providers", model="horizon_check", simulation="horizon", faults="test_without_the_guard_the_ledger_shows_the_harm[the horizon]"),
    Guard("connection before the horizon", "the connection is open before the horizon is checked", "I1, W7", "providers/wire.py", model="connect_first"),
    Guard(
        "one key for ever", "the key of a step is one string for ever", "I6, W8", "core/keys.py step_key",
        model="stable_key", simulation="stable_key", faults="test_without_the_guard_the_ledger_shows_the_harm[one key for ever]",
        controls=("random_key",), flow=(f"{_NEGATIVE}test_with_a_random_key_for_each_try_the_oracle_objects",),
        chaos=(f"{_CRASH}test_with_a_random_key_the_kills_find_a_second_refund", f"{_WIRE}test_with_a_random_key_a_broken_wire_to_the_provider_finds_a_second_refund"),
    ),
    Guard("one key per step", "creation and confirmation have keys of their own", "I6", "core/keys.py step_key", story=w.keys_of_two_steps, out=("one_key",)),
    Guard(
        "recovery point", "the intent's id is committed before the first confirm", "I1, W11", "store/attempts.py _RECORD",
        model="progress_first", simulation="recovery_point", controls=("no_recovery_point",),
        flow=(f"{_NEGATIVE}test_without_key_and_recovery_point_a_lost_answer_charges_twice",),
        chaos=(f"{_CRASH}test_without_key_and_recovery_point_the_kills_find_a_double_charge", f"{_WIRE}test_without_key_and_recovery_point_a_broken_wire_to_the_provider_finds_a_double_charge"),
    ),
    Guard("fenced recovery point", "a recovery point is written by the owner only", "I9, W11", "store/attempts.py _RECORD", model="fenced_record", story=b.zombie_records, out=("unfenced_record",)),
    Guard("marker before the dot", "SMTP: the marker is committed before the final dot", "I1, W7", "providers/mail/smtp.py", model="marker_before_dot", simulation="marker_before_dot"),
    Guard("blind policy", "at most once means that an unanswered dot is the last", "I1, W8", "providers/mail/smtp.py", model="blind_policy", simulation="blind_policy", faults="test_without_the_guard_the_ledger_shows_the_harm[the letter's policy]"),
    Guard("copies limit", "at least once means a bounded number of copies", "I1", "providers/mail/smtp.py", model="copies_limit"),
)  # fmt: skip
LEARNING = (
    Guard("unclassified is unknown", "what has no line in the table of answers is unknown, never failed", "I5, W8", "providers/stripe/statuses.py unsettled", faults="test_without_the_guard_the_ledger_shows_the_harm[unclassified is unknown]"),
    Guard("echo check", "an answer must show the object that was asked for", "I5", "providers/stripe/statuses.py echoed_by", story=w.answer_about_another_object, out=("no_echo",)),
    Guard("front answer restores", "a front answer restores the state before the claim, doubt included", "I1, I5, W8", "engine/settlement.py", model="front_restores", simulation="front_restores", faults="test_without_the_guard_the_ledger_shows_the_harm[a front answer restores]"),
    Guard("own answers only", "in doubt, a refusal in front of the key's memory settles nothing", "I5, W8", "providers/stripe/answers.py", model="own_answers_only", simulation="own_answers_only"),
    Guard("doubt outlives the state", "an unknown outcome stays in doubt until an own answer", "I1, W8", "engine/settlement.py", faults="test_without_the_guard_the_ledger_shows_the_harm[doubt outlives the state]"),
    Guard("look-up before a re-send", "past the horizon the provider is asked before anything is called absent", "I1, I5", "providers/stripe", model="look_up", simulation="look_up"),
    Guard("two misses", "one miss proves nothing", "I5", "providers/stripe/attempt.py missed", model="two_misses", faults="test_without_the_guard_the_ledger_shows_the_harm[two spaced misses]"),
    Guard("spaced misses", "two misses are an hour apart", "I5", "providers/stripe/attempt.py missed", model="spaced_misses"),
    Guard("misses forgotten", "a fresh send forgets the misses before it", "I1", "providers/stripe/attempt.py", model="misses_forgotten"),
)  # fmt: skip
SETTLING = (
    Guard(
        "fence", "each write carries the attempt's number", "I9, W9", "store/attempts.py _SETTLE",
        model="fence", simulation="fence", story=b.zombie_settles, out=("no_fence",),
        flow=(f"{_NEGATIVE}test_without_the_fence_a_zombie_writes_over_the_attempt_that_took_over",),
    ),
    Guard("fence in a batch", "two attempts of one effect that end in one batch are told apart", "I7, I9", "store/attempts.py _SETTLE", story=b.zombie_settles_beside_its_heir, out=("one_of_a_batch",)),
    Guard(
        "final guard", "a settlement only finds what may move there", "I5, I8", "store/attempts.py _SETTLE",
        model="final_guard", simulation="final_guard", story=b.late_answer_that_goes_back, out=("any_settlement",),
        covered_by="trigger effects_transition", cover_sql=(_NO_TRANSITION,),
    ),
    Guard("row goes with the settlement", "the outbox row is deleted in the settling commit", "I7, W10", "store/attempts.py _SETTLE", story=b.settled_row, out=("row_stays",)),
    Guard("follow-up in the settling commit", "a receipt is accepted in the commit that settles its charge", "I2, W10", "engine/settle.py", simulation="follow_up_in_commit", story=b.killed_between_charge_and_receipt, out=("follow_up_afterwards",)),
)  # fmt: skip
DELIVERING = (
    Guard(
        "row until settled", "the outbox row lives until the effect is settled, not until it is published", "I2, I7, W3, W4",
        "store/outbox.py take", model="row_until_settled", simulation="row_until_settled", story=b.lost_message, out=("delete_on_publish",),
        flow=(f"{_NEGATIVE}test_without_the_row_a_lost_message_is_a_lost_charge",),
    ),
    Guard("window", "the broker holds a window of messages, the backlog waits in Postgres", "back-pressure", "engine/relay.py _room", story=b.deep_backlog, out=("no_window",), flow=(f"{_PROCESS}test_without_the_window_the_whole_backlog_is_in_the_broker",)),
    Guard("publisher confirm", "handed over means stored", "W4", "broker/confirms.py", story=w.full_queue, out=("no_confirm",), flow=(f"{_PROCESS}test_w4_without_the_confirm_a_message_nobody_stored_counts_as_published[rabbitmq]",)),
    Guard("acks_late", "a message is acknowledged when its work is done", "W5", "broker/configuration.py", story=w.message_of_a_worker_that_will_die, out=("acks_early",), flow=(f"{_PROCESS}test_w5_a_message_whose_worker_dies_before_the_claim_is_lost_without_acks_late_and_row[acks_early,delete_on_publish-rabbitmq]",)),
    Guard("reject_on_worker_lost", "the message of a child that was killed comes again", "W5, W7", "broker/configuration.py", story=w.message_of_a_child_that_was_killed, out=("acks_the_lost",), flow=(f"{_PROCESS}test_a_message_whose_child_is_killed_is_lost_without_reject_and_row[acks_the_lost,delete_on_publish]",)),
    Guard("list item check", "what is no message never reaches kombu", "foreign messages", "broker/redis_transport.py", story=w.bytes_that_are_no_message, out=("no_item_check",), flow=(f"{_PROCESS}test_without_the_look_at_list_items_one_foreign_item_ends_the_worker",)),
    Guard("message check", "what is no task of ours never reaches Celery", "foreign messages, I3", "broker/consumer.py", story=w.task_with_a_callback, out=("no_message_check",), chaos=("tests/chaos/test_message_faults.py::test_without_the_look_at_messages_the_same_corpus_does_harm",)),
    Guard("ids only", "a message may name effects and nothing else", "I3", "broker/messages.py", story=w.message_that_names_no_effect, out=("any_ids",)),
)  # fmt: skip
PEOPLE = (
    Guard("doubt survives a replay", "a person's replay leaves the effect in doubt", "I1", "store/operations.py _REPLAY", model="doubt_survives_replay", simulation="doubt_survives_replay", story=b.replay_of_what_is_in_doubt, out=("sure_replay",)),
    Guard("a live attempt is left alone", "a replay skips what is under way", "I8", "store/selection.py live", story=b.replay_of_a_living_attempt, out=("replay_the_living",)),
    Guard("a plan is frozen", "what has changed since the plan is skipped", "I8", "store/operations.py _CHOSEN", story=b.replay_of_what_has_changed, out=("replay_what_changed",)),
    Guard("quiet hour", "nobody declares failed what may still land: two looks, hours apart", "I5", "engine/resolve.py _too_soon", model="person_looks_twice", simulation="quiet_hour", story=b.person_in_a_hurry, out=("at_once",)),
    Guard("the provider outranks a person", "what the provider says is not overwritten by what a person declares", "I5", "engine/resolve.py objects", story=b.person_against_the_provider, out=("outranked",), covered_by="the provider's own outcome, which is what gets written (_outcome)", cover_out=("own_words",)),
    Guard("proof before a release", "a person may send again only what is proven absent", "I1", "engine/resolve.py _provably_not_done", simulation="proof_before_release", story=b.person_who_sends_again, out=("no_proof",)),
)  # fmt: skip

GUARDS = (*ACCEPTING, *CLAIMING, *SENDING, *LEARNING, *SETTLING, *DELIVERING, *PEOPLE)
BY_STORY = {guard.story: guard for guard in GUARDS if guard.story}
