"""The inbox: one row for each webhook event a provider has told us.

Revision: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INBOX = """
create table inbox (
    provider text not null,
    event_id text not null,
    type text not null,
    object_id text not null,
    object_type text not null,
    effect_id uuid,
    payment_intent text,
    event_at timestamptz not null,
    received_at timestamptz not null default clock_timestamp(),
    available_at timestamptz not null default now(),
    tries bigint not null default 0,
    processed_at timestamptz,
    result text,
    primary key (provider, event_id),
    constraint inbox_tries check (tries >= 0),
    constraint inbox_result check ((processed_at is null) = (result is null))
);

create index inbox_open on inbox (available_at) where processed_at is null;
create index inbox_received on inbox (received_at);

comment on table inbox is 'One event a provider has told us, by its id: a hint to look, never a fact by itself.';
comment on column inbox.effect_id is 'what the object says of itself (metadata); not a reference, it may be anything';
comment on column inbox.event_at is 'the provider''s time; says nothing about order';
comment on column inbox.result is 'what came of looking';
"""


def upgrade() -> None:
    op.execute(INBOX)


def downgrade() -> None:
    op.execute("drop table inbox")
