"""What all workers share about a provider: its token bucket and whether its circuit is closed.

Revision: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

LIMITS = """
create table buckets (
    account text primary key,
    tokens double precision not null,
    filled_at timestamptz not null default clock_timestamp(),
    constraint buckets_tokens check (tokens >= 0)
);

create table circuits (
    provider text primary key,
    failures bigint not null default 0,
    opened_at timestamptz,
    probe_at timestamptz,
    last_error text,
    constraint circuits_failures check (failures >= 0),
    constraint circuits_open check ((opened_at is null) = (probe_at is null))
);

comment on table buckets is 'A provider account''s tokens: how many calls all workers together may begin now.';
comment on table circuits is 'A provider that fails again and again: nothing is claimed for it before probe_at.';
"""


def upgrade() -> None:
    op.execute(LIMITS)


def downgrade() -> None:
    op.execute("drop table circuits; drop table buckets")
