"""API keys: who may call, for which tenant, and what; and what a webhook may do without a tenant.

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
    -- The bucket of its requests, beside it: one row is read and written by a request, whichever process it came to.
    tokens double precision,
    filled_at timestamptz,
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
    constraint api_keys_pace check ((per_second is null) = (burst is null)
        and per_second > 0 and per_second < 'Infinity' and burst > 0),
    constraint api_keys_tokens check ((tokens is null) = (filled_at is null)
        and (tokens is null or (burst is not null and tokens between 0 and burst))),
    constraint api_keys_revoked check ((revoked_at is null) = (revoked_by is null))
) with (fillfactor = 50);

-- A stolen login of the API must not make a small key a large one, nor a revoked one live.
create trigger api_keys_frozen before update on api_keys for each row when (
    (old.id, old.tenant, old.name, old.hash, old.scopes, old.per_second, old.burst, old.created_at, old.created_by,
     old.rotates) is distinct from
    (new.id, new.tenant, new.name, new.hash, new.scopes, new.per_second, new.burst, new.created_at, new.created_by,
     new.rotates)
    or (old.revoked_at is not null
        and (old.revoked_at, old.revoked_by) is distinct from (new.revoked_at, new.revoked_by)))
    execute function counterfoil_refuse('a key keeps what it was made with, and a revoked one stays revoked');

comment on table api_keys is 'One key of one tenant: its hash, never itself.';
comment on column api_keys.tokens is 'requests that may begin now, as of filled_at';
comment on column api_keys.rotates is 'the key that this one takes over from; both live until the older one expires';
comment on column api_keys.used_at is 'to the minute: a write a minute, not one a request';
"""

# A webhook speaks for no tenant and nudges effects of any. With the owner's rights, so that the API's own login needs
# none to change effects: it can make one come due, which is harmless, and nothing else. The object names its effect
# itself (metadata), or we know it by the reference we have stored; effects that act upon it (a capture of unknown
# outcome) are nudged as well. A row that somebody works on is skipped: Stripe must not wait, and the event stays open.
RECEIVE = """
create function counterfoil_receive(
    in_provider text, in_event_id text, in_type text, in_object_id text, in_object_type text, in_effect_id uuid,
    in_payment_intent text, in_at timestamptz, in_actor text, in_patience double precision)
returns table (new bigint, nudged text[]) language sql security definer as $$
with named as materialized (
    select e.id from effects e where e.id = in_effect_id
    union select e.id from effects e where e.provider_ref is not null and e.provider = in_provider
        and e.provider_ref in (in_object_id, in_payment_intent)
), linked as materialized (
    select id from named union select d.id from named n join effects d on d.concerns = n.id
), target as materialized (
    select e.id, e.attempt from linked l join effects e on e.id = l.id
    where e.state in ('unknown', 'awaiting') order by e.id for no key update of e skip locked
), event as (
    insert into inbox (provider, event_id, type, object_id, object_type, effect_id, payment_intent, event_at,
                       available_at)
    values (in_provider, in_event_id, in_type, in_object_id, in_object_type, in_effect_id, in_payment_intent, in_at,
            now() + make_interval(secs => case when exists (select from target) then in_patience else 0 end))
    on conflict (provider, event_id) do nothing returning event_id
), due as (
    update effects e set not_before = null from target t where e.id = t.id and exists (select from event)
    returning e.id, e.attempt
), duty as (
    update outbox o set road = 'later', available_at = now()
    from due d where o.effect_id = d.id and o.road in ('later', 'published')
), facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select id, 'hinted', attempt, in_actor, jsonb_build_object('event', in_event_id, 'type', in_type) from due
)
select (select count(*) from event), array(select cast(id as text) from due)
$$;

do $$ declare g record; begin
    execute format('alter function counterfoil_receive set search_path = %I, pg_temp', current_schema());
    revoke all on function counterfoil_receive from public;
    -- Whoever could keep an event before, by whatever role, still can.
    for g in select case when a.grantee = 0 then 'public' else a.grantee::regrole::text end as who
             from pg_class c, aclexplode(c.relacl) a
             where c.oid = 'inbox'::regclass and a.grantee <> c.relowner and a.privilege_type = 'INSERT' loop
        execute format('grant execute on function counterfoil_receive to %s', g.who);
    end loop;
end $$;
"""


def upgrade() -> None:
    op.execute(KEYS)
    op.execute(RECEIVE)


def downgrade() -> None:
    op.execute("drop function counterfoil_receive; drop table api_keys")
