"""Which life of the database this is, and what an earlier one may have left at the provider.

Revision: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INCARNATIONS = """
create table incarnations (
    id bigint generated always as identity primary key,
    system_identifier text not null,
    timeline bigint not null,
    began_at timestamptz not null default clock_timestamp(),
    quarantined_at timestamptz,
    quarantine_reason text,
    released_at timestamptz,
    released_by text,
    release_reason text,
    counts jsonb not null default '{}'
);

create table orphans (
    provider text not null,
    provider_ref text not null,
    dedupe_hash text,
    effect_id uuid,
    kind text not null,
    amount bigint,
    currency text,
    provider_created_at timestamptz,
    incarnation bigint references incarnations (id),
    found_at timestamptz not null default clock_timestamp(),
    adopted_by uuid,
    primary key (provider, provider_ref)
);

create unique index orphans_dedupe_hash on orphans (dedupe_hash) where dedupe_hash is not null and adopted_by is null;

comment on table incarnations is 'The lives of this database: a new timeline or system sends nothing until it is released.';
comment on table orphans is 'Objects at the provider that a database which went back in time has forgotten.';
"""


def upgrade() -> None:
    op.execute(INCARNATIONS)


def downgrade() -> None:
    op.execute("drop table orphans; drop table incarnations")
