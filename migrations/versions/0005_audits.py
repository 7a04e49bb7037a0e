"""Audits and the breaks they found: one row for each thing that does not agree with the provider.

Revision: 0005
"""

from alembic import op

from migrations.steps import once

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

AUDITS = """
create table audits (
    id bigint generated always as identity primary key,
    since timestamptz not null,
    until timestamptz not null,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    actor text not null,
    counts jsonb not null default '{}',
    constraint audits_window check (since < until)
);

create table breaks (
    id bigint generated always as identity primary key,
    class text not null,
    subject text not null,
    effect_id uuid,
    provider text,
    provider_ref text,
    amount bigint,
    currency text,
    detail jsonb not null default '{}',
    first_audit bigint references audits (id),
    last_audit bigint references audits (id),
    found_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp(),
    owner text,
    note text,
    closed_at timestamptz,
    closed_by text,
    constraint breaks_names check (class <> '' and subject <> ''),
    constraint breaks_closed check ((closed_at is null) = (closed_by is null))
);

create unique index breaks_open on breaks (class, subject) where closed_at is null;
create index breaks_effect on breaks (effect_id) where effect_id is not null;

comment on table audits is 'One comparison of our books with the provider''s; the last finished one is the cursor.';
comment on table breaks is 'One thing that does not agree, until a person closes it.';
comment on column breaks.subject is 'what it is about: an effect''s id, a provider''s object, a currency';
comment on column breaks.amount is 'minor units';
"""


def upgrade() -> None:
    once("audits", AUDITS)
    # For the audit's window. A summary by blocks: tiny, and from Postgres 16 on no hindrance to heap-only updates.
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists effects_settled")
        op.execute("create index concurrently effects_settled on effects using brin (settled_at)"
                   " with (autosummarize = on)")


def downgrade() -> None:
    op.execute("drop index effects_settled")
    op.execute("drop table breaks; drop table audits")
