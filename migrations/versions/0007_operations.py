"""Operations: what a person does to many effects, frozen before it begins; lanes, groups' notes and the operators' log.

Revision: 0007
"""

from alembic import op

from migrations.steps import once

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OPERATIONS = """
create table operations (
    id uuid primary key,
    verb text not null,
    state text not null default 'planned',
    selector jsonb not null,
    -- NULL: an operator's, over all tenants.
    tenant text,
    total bigint not null,
    skipped jsonb not null default '{}',
    money jsonb not null default '{}',
    more boolean not null default false,
    planned_by text not null,
    planned_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    reason text,
    started_by text,
    started_at timestamptz,
    per_second double precision,
    canary bigint not null default 0,
    failures_max bigint,
    -- Since when, and after how many, the pace is counted: anew after a pause and after a time without relays.
    paced_at timestamptz,
    paced_from bigint not null default 0,
    beat_at timestamptz,
    paused_at timestamptz,
    stop_reason text,
    finished_at timestamptz,
    constraint operations_verb check (verb in ('replay', 'park', 'unpark')),
    constraint operations_state check (state in ('planned', 'running', 'paused', 'done', 'stopped', 'cancelled')),
    constraint operations_total check (total >= 0),
    constraint operations_pace check (per_second > 0 and canary >= 0 and failures_max >= 0),
    constraint operations_started check (
        (started_at is null) = (started_by is null) and (started_at is null or reason <> '')
        and (state not in ('running', 'paused', 'done', 'stopped') or started_at is not null)),
    constraint operations_paused check ((paused_at is not null) = (state = 'paused')),
    constraint operations_finished check ((finished_at is not null) = (state in ('done', 'stopped', 'cancelled')))
);

create index operations_open on operations (started_at) where state in ('running', 'paused');
create index operations_planned_at on operations (planned_at);

create table operation_items (
    operation_id uuid not null references operations (id),
    effect_id uuid not null,
    position bigint not null,
    -- What was seen when the plan froze it: a row that changed since is skipped.
    seen_state text not null,
    seen_attempt bigint not null,
    result text not null default 'waiting',
    why text,
    done_at timestamptz,
    -- How the effect stood when it came to rest after it was replayed.
    ended text,
    primary key (operation_id, effect_id),
    constraint operation_items_position unique (operation_id, position),
    constraint operation_items_result check (result in ('waiting', 'done', 'skipped')),
    constraint operation_items_done check ((done_at is null) = (result = 'waiting')),
    constraint operation_items_why check ((why is not null) = (result = 'skipped')),
    constraint operation_items_ended check (ended is null or result = 'done')
);

create index operation_items_effect on operation_items (effect_id);

create table group_notes (
    group_id text not null,
    id bigint generated always as identity,
    -- Whose note it is; NULL: an operator's, which no tenant reads.
    tenant text,
    note text not null,
    author text not null,
    at timestamptz not null default clock_timestamp(),
    primary key (group_id, id),
    constraint group_notes_note check (note <> '')
);

create table lanes (
    name text primary key,
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    constraint lanes_paused check (
        (paused_at is null) = (paused_by is null) and (paused_at is null) = (pause_reason is null))
);

create table actions (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    door text not null,
    verb text not null,
    subject text not null,
    reason text,
    detail jsonb not null default '{}',
    constraint actions_door check (door in ('api', 'cli', 'console', 'periodic'))
);

create index actions_subject on actions (subject, id);

create trigger actions_append_only before update or delete on actions
    for each row execute function counterfoil_refuse('the operators'' log is append-only');
create trigger actions_keep before truncate on actions
    for each statement execute function counterfoil_refuse('the operators'' log is append-only');
create trigger operation_items_frozen before update on operation_items for each row when (
    (new.operation_id, new.effect_id, new.position, new.seen_state, new.seen_attempt)
        is distinct from (old.operation_id, old.effect_id, old.position, old.seen_state, old.seen_attempt)
    or (old.result <> 'waiting' and new.result <> old.result))
    execute function counterfoil_refuse('a plan is frozen');

comment on table operations is 'One verb upon many effects: planned, then carried out by the relay, with a reason.';
comment on table operation_items is 'The frozen set of an operation: one effect, as it was seen, and what became of it.';
comment on table group_notes is 'What people wrote about a group of failures.';
comment on table lanes is 'A lane that somebody has paused: what is due there is held, not published.';
comment on table actions is 'One write of a person or key that concerns no single effect: the operators'' log, append-only.';
comment on column outbox.road is 'fresh, later, published, parked or held: which index holds the row';
comment on column operations.per_second is 'pace; NULL is as fast as the window allows';
comment on column operations.beat_at is 'when a relay last looked after it';
comment on column operations.canary is 'so many first effects must succeed before the others begin';
"""

# The way of a paused lane: what comes due there is moved out of the sight of the relays.
HELD = """
alter table outbox
    -- squawk-ignore ban-drop-constraint
    drop constraint outbox_road,
    add constraint outbox_road check (road in ('fresh', 'later', 'published', 'parked', 'held')) not valid;
"""

FACTS = """
alter table journal
    -- squawk-ignore ban-drop-constraint
    drop constraint journal_fact,
    add constraint journal_fact check (fact in (
        'accepted', 'claimed', 'progressed', 'leased_out', 'late_answer', 'deferred', 'awaiting', 'unknown', 'absent',
        'succeeded', 'failed', 'parked', 'unparked', 'replayed', 'hinted', 'verified', 'resolved', 'recovered', 'erased'
        )) not valid;
"""


def upgrade() -> None:
    once("operations", OPERATIONS, HELD, FACTS)
    with op.get_context().autocommit_block():
        op.execute("alter table outbox validate constraint outbox_road")
        op.execute("alter table journal validate constraint journal_fact")
        op.execute("drop index concurrently if exists outbox_held")
        op.execute("create index concurrently outbox_held on outbox (lane, available_at) where road = 'held'")


def downgrade() -> None:
    op.execute("update outbox set road = 'later' where road = 'held'")
    op.execute("drop index outbox_held")
    op.execute("""
        alter table outbox drop constraint outbox_road,
            add constraint outbox_road check (road in ('fresh', 'later', 'published', 'parked')) not valid;
        alter table journal drop constraint journal_fact,
            add constraint journal_fact check (fact in (
                'accepted', 'claimed', 'progressed', 'leased_out', 'late_answer', 'deferred', 'awaiting', 'unknown',
                'absent', 'succeeded', 'failed', 'parked', 'unparked', 'replayed', 'hinted', 'verified', 'resolved',
                'recovered')) not valid;
        drop table actions; drop table lanes; drop table group_notes; drop table operation_items; drop table operations;
    """)
