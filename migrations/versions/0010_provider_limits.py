"""What all workers share about a provider: its token bucket and whether its circuit is closed.

Revision: 0010
"""

from alembic import op

from migrations.steps import once

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

LIMITS = """
create table buckets (
    account text primary key,
    costs jsonb not null,
    per_second double precision not null,
    burst double precision not null,
    tokens double precision not null,
    granted double precision not null default 0,
    filled_at timestamptz not null default now(),
    constraint buckets_costs check (jsonb_typeof(costs) = 'object' and costs <> '{}'),
    constraint buckets_rate check (per_second > 0 and per_second < 'infinity' and burst > 0 and burst < 'infinity'),
    -- NaN is greater than all numbers in Postgres, so the upper bound keeps it out as well.
    constraint buckets_tokens check (tokens >= 0 and tokens <= burst)
);

create table circuits (
    provider text primary key,
    kinds text[] not null,
    failures bigint not null default 0,
    opened_at timestamptz,
    probe_at timestamptz,
    probes bigint not null default 0,
    last_error text,
    constraint circuits_kinds check (cardinality(kinds) > 0),
    constraint circuits_failures check (failures >= 0 and probes >= 0),
    constraint circuits_open check ((opened_at is null) = (probe_at is null))
);

comment on table buckets is 'A provider account''s tokens: how many calls all workers together may begin now.';
comment on column buckets.costs is 'kind to calls: what one effect takes';
comment on column buckets.granted is 'what the last taker got: how a single statement can answer it';
comment on table circuits is 'A provider that fails again and again: nothing is claimed for it before probe_at.';
comment on column circuits.failures is 'in a row, over all workers';
comment on column circuits.probes is 'failed ones since it was opened: the next one waits longer';
"""


def upgrade() -> None:
    once("buckets", LIMITS)
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists outbox_by_kind")
        # What is due of one kind and priority, longest due first: a relay that may not publish everything finds what
        # it may, however much waits beside it.
        op.execute(
            "create index concurrently outbox_by_kind on outbox (kind, priority, available_at)"
            " where road in ('fresh', 'later', 'published')"
        )


def downgrade() -> None:
    op.execute("drop index outbox_by_kind")
    op.execute("drop table circuits")
    op.execute("drop table buckets")
