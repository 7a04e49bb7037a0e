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
    -- A chain: each life follows one, so that of two processes that notice the same thing one writes it down.
    follows bigint not null,
    system_identifier text not null,
    database_oid bigint not null,
    timeline bigint not null,
    last_fact bigint not null,
    began_at timestamptz not null default clock_timestamp(),
    quarantined_at timestamptz,
    quarantine_reason text,
    released_at timestamptz,
    released_by text,
    release_reason text,
    counts jsonb not null default '{}',
    constraint incarnations_chain unique (follows),
    constraint incarnations_quarantine check ((quarantined_at is null) = (quarantine_reason is null)),
    constraint incarnations_release check (
        (released_at is null) = (released_by is null) and (released_at is null) = (release_reason is null)
        and (released_at is not null or quarantined_at is not null))
);

create trigger incarnations_keep before delete on incarnations
    for each row execute function counterfoil_refuse('what lived is kept for ever');
create trigger incarnations_keep_all before truncate on incarnations
    for each statement execute function counterfoil_refuse('what lived is kept for ever');
create trigger incarnations_final before update on incarnations for each row when (old.released_at is not null)
    execute function counterfoil_refuse('a release is final');

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
comment on column incarnations.follows is 'the id of the life before it; 0 for the first';
comment on column incarnations.last_fact is 'the journal''s last id when it began: what was accepted later was never sent by an earlier life';
comment on table orphans is 'Objects at the provider that a database which went back in time has forgotten.';
comment on column orphans.dedupe_hash is 'sha-256 of tenant, kind and dedupe key: how a caller''s repeat finds its money';
comment on column orphans.adopted_by is 'the effect that has taken it over';
"""


def upgrade() -> None:
    op.execute(INCARNATIONS)


def downgrade() -> None:
    op.execute("drop table orphans; drop table incarnations")
