"""API keys: who may call, for which tenant, and what.

Revision: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KEYS = """
create table api_keys (
    -- The public part of the key, which logs and lists may show.
    id text primary key,
    tenant text not null,
    name text not null,
    -- sha-256 of the whole key: 256 random bits need no slow hash.
    hash text not null,
    scopes text[] not null,
    per_second double precision,
    burst bigint,
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null,
    expires_at timestamptz,
    rotates text references api_keys (id),
    revoked_at timestamptz,
    revoked_by text,
    used_at timestamptz,
    constraint api_keys_hash unique (hash),
    constraint api_keys_hash_form check (hash ~ '^[0-9a-f]{64}$'),
    constraint api_keys_names check (id <> '' and tenant <> '' and name <> ''),
    constraint api_keys_scopes check (cardinality(scopes) > 0 and scopes <@ array[
        'charges:write', 'refunds:write', 'emails:write', 'effects:read', 'operations:read', 'operations:write']),
    constraint api_keys_pace check ((per_second is null) = (burst is null) and per_second > 0 and burst > 0),
    constraint api_keys_revoked check ((revoked_at is null) = (revoked_by is null))
);

comment on table api_keys is 'One key of one tenant: its hash, never itself.';
comment on column api_keys.rotates is 'the key that this one takes over from; both live until the older one expires';
comment on column api_keys.used_at is 'to the minute: a write a minute, not one a request';
"""


def upgrade() -> None:
    op.execute(KEYS)


def downgrade() -> None:
    op.execute("drop table api_keys")
