"""The three tables, with every promise the database itself can keep.

Revision: 0001
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Frozen here, as a migration must be; a test compares both lists with service.core.
CURRENCIES = """
    'aed', 'afn', 'all', 'amd', 'aoa', 'ars', 'aud', 'awg', 'azn', 'bam', 'bbd', 'bdt', 'bhd', 'bif', 'bmd', 'bnd',
    'bob', 'brl', 'bsd', 'btn', 'bwp', 'byn', 'bzd', 'cad', 'cdf', 'chf', 'clp', 'cny', 'cop', 'crc', 'cup', 'cve',
    'czk', 'djf', 'dkk', 'dop', 'dzd', 'egp', 'ern', 'etb', 'eur', 'fjd', 'fkp', 'gbp', 'gel', 'ghs', 'gip', 'gmd',
    'gnf', 'gtq', 'gyd', 'hkd', 'hnl', 'htg', 'huf', 'idr', 'ils', 'inr', 'iqd', 'irr', 'isk', 'jmd', 'jod', 'jpy',
    'kes', 'kgs', 'khr', 'kmf', 'kpw', 'krw', 'kwd', 'kyd', 'kzt', 'lak', 'lbp', 'lkr', 'lrd', 'lsl', 'lyd', 'mad',
    'mdl', 'mga', 'mkd', 'mmk', 'mnt', 'mop', 'mru', 'mur', 'mvr', 'mwk', 'mxn', 'myr', 'mzn', 'nad', 'ngn', 'nio',
    'nok', 'npr', 'nzd', 'omr', 'pab', 'pen', 'pgk', 'php', 'pkr', 'pln', 'pyg', 'qar', 'ron', 'rsd', 'rub', 'rwf',
    'sar', 'sbd', 'scr', 'sdg', 'sek', 'sgd', 'shp', 'sle', 'sos', 'srd', 'ssp', 'stn', 'svc', 'syp', 'szl', 'thb',
    'tjs', 'tmt', 'tnd', 'top', 'try', 'ttd', 'twd', 'tzs', 'uah', 'ugx', 'usd', 'uyu', 'uzs', 'ved', 'ves', 'vnd',
    'vuv', 'wst', 'xaf', 'xcd', 'xcg', 'xof', 'xpf', 'yer', 'zar', 'zmw', 'zwg'
"""
TRANSITIONS = """
        'awaiting>executing', 'awaiting>failed', 'awaiting>parked', 'awaiting>succeeded', 'executing>awaiting',
        'executing>failed', 'executing>parked', 'executing>pending', 'executing>succeeded', 'executing>unknown',
        'parked>failed', 'parked>pending', 'parked>succeeded', 'pending>executing', 'pending>parked',
        'unknown>awaiting', 'unknown>executing', 'unknown>failed', 'unknown>parked', 'unknown>pending',
        'unknown>succeeded'
"""

EFFECTS = """
create table effects (
    id uuid primary key,
    tenant text not null,
    kind text not null,
    dedupe_key text not null,
    fingerprint text not null,
    request jsonb,
    state text not null,
    attempt bigint not null default 0,
    lease_until timestamptz,
    not_before timestamptz,
    first_sent_at timestamptz,
    in_doubt boolean not null default false,
    budget_from bigint not null default 0,
    patience_from timestamptz,
    progress jsonb not null default '{}',
    policy text not null,
    provider text,
    provider_ref text,
    outcome jsonb,
    amount bigint,
    currency text,
    caused_by uuid references effects (id),
    context jsonb not null default '{}',
    created_at timestamptz not null default now(),
    settled_at timestamptz,
    constraint effects_dedupe_key unique (tenant, kind, dedupe_key),
    constraint effects_names check (tenant <> '' and kind <> '' and dedupe_key <> ''),
    constraint effects_fingerprint check (fingerprint ~ '^[0-9a-f]{64}$'),
    constraint effects_state check (state in (
        'pending', 'executing', 'awaiting', 'unknown', 'parked', 'succeeded', 'failed')),
    constraint effects_policy check (policy in ('at_most_once', 'at_least_once')),
    constraint effects_attempt check (attempt >= 0 and (attempt = 0 or first_sent_at is not null)),
    constraint effects_lease check ((lease_until is not null) = (state = 'executing')),
    constraint effects_doubt check (state <> 'unknown' or in_doubt),
    constraint effects_settled check ((settled_at is not null) = (state in ('succeeded', 'failed'))),
    constraint effects_outcome check (settled_at is null or outcome is not null),
    constraint effects_final_certain check (settled_at is null or not in_doubt),
    constraint effects_request check (request is not null or settled_at is not null),
    constraint effects_provider check (provider_ref is null or provider is not null),
    constraint effects_money check (
        (amount is null) = (currency is null) and amount between 1 and 99999999),
    constraint effects_currency check (currency in (CURRENCY_LIST)),
    constraint effects_charge_has_money check (kind <> 'charge' or amount is not null),
    constraint effects_money_as_requested check ((
        amount is null or request is null
        or ((request ->> 'amount')::bigint = amount and request ->> 'currency' = currency)) is true)
) with (fillfactor = 70);

create unique index effects_provider_ref on effects (provider, provider_ref) where provider_ref is not null;
create index effects_caused_by on effects (caused_by) where caused_by is not null;

comment on table effects is 'One thing to be done once: the permanent record, and the tombstone of its dedupe key.';
comment on column effects.id is 'UUIDv7, made by the caller''s process: time-ordered, cheap to index';
comment on column effects.dedupe_key is 'the caller''s name of this effect; kept for ever';
comment on column effects.fingerprint is 'sha-256 of the canonical request';
comment on column effects.request is 'frozen; NULL once purged';
comment on column effects.attempt is 'the fencing token';
comment on column effects.lease_until is 'until when the current attempt owns the effect';
comment on column effects.not_before is 'eta or backoff: a message that arrives earlier executes nothing';
comment on column effects.first_sent_at is 'committed before the first byte goes out; never changes again';
comment on column effects.in_doubt is 'may have been carried out';
comment on column effects.budget_from is 'the attempt that the budget is counted from: 0, or the last rest or replay';
comment on column effects.patience_from is 'when the age limit begins: NULL is first_sent_at, else the last rest or replay';
comment on column effects.progress is 'recovery point';
comment on column effects.policy is 'after an unknown outcome at a blind provider';
comment on column effects.provider_ref is 'the provider''s own id';
comment on column effects.amount is 'minor units';
comment on column effects.currency is 'lowercase ISO-4217';
comment on column effects.caused_by is 'the effect whose success asked for this one';
comment on column effects.context is 'trace context and request id';
"""

OUTBOX = """
create table outbox (
    effect_id uuid primary key references effects (id),
    kind text not null,
    lane text not null,
    priority smallint not null default 0,
    road text not null,
    available_at timestamptz not null default now(),
    deliveries bigint not null default 0,
    parked_at timestamptz,
    parked_reason text,
    last_error text,
    created_at timestamptz not null default now(),
    constraint outbox_road check (road in ('fresh', 'later', 'published', 'parked')),
    constraint outbox_priority check (priority between 0 and 9),
    constraint outbox_deliveries check (deliveries >= 0 and (road <> 'fresh' or deliveries = 0)),
    constraint outbox_parked check (
        (road = 'parked') = (parked_at is not null) and (road = 'parked') = (parked_reason is not null))
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

create index outbox_fresh on outbox (priority desc, effect_id) where road = 'fresh';
create index outbox_later on outbox (available_at) where road = 'later';
create index outbox_published on outbox (available_at) where road = 'published';
create index outbox_parked on outbox (parked_at) where road = 'parked';

comment on table outbox is 'The duty to deliver one unsettled effect; the row lives until the effect is settled.';
comment on column outbox.kind is 'the task name';
comment on column outbox.lane is 'the Celery queue';
comment on column outbox.priority is '0 to 9, 9 first';
comment on column outbox.road is 'fresh, later, published or parked: which index holds the row';
comment on column outbox.available_at is 'when the row comes due (again)';
"""

JOURNAL = """
create table journal (
    effect_id uuid not null,
    id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    fact text not null,
    attempt bigint not null,
    actor text not null,
    evidence jsonb not null default '{}',
    primary key (effect_id, id),
    constraint journal_fact check (fact in (
        'accepted', 'claimed', 'progressed', 'leased_out', 'late_answer', 'deferred', 'awaiting', 'unknown',
        'succeeded', 'failed', 'parked', 'unparked', 'replayed', 'resolved')),
    constraint journal_attempt check (attempt >= 0)
);

comment on table journal is 'One fact about an effect, append-only: a trigger refuses UPDATE, DELETE and TRUNCATE.';
comment on column journal.actor is 'who wrote it: a process or a person';
comment on column journal.evidence is 'status, request id, code; no payload';
"""

# The WHEN clauses are evaluated without calling the function, so a legal write pays next to nothing.
GUARDS = """
create function counterfoil_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'counterfoil: % of % refused: %', lower(tg_op), tg_table_name, tg_argv[0]
        using errcode = 'integrity_constraint_violation';
end $$;

create trigger journal_append_only before update or delete on journal
    for each row execute function counterfoil_refuse('the journal is append-only');
create trigger journal_keep before truncate on journal
    for each statement execute function counterfoil_refuse('the journal is append-only');

create trigger effects_keep before delete on effects
    for each row execute function counterfoil_refuse('a dedupe key is kept for ever');
create trigger effects_keep_all before truncate on effects
    for each statement execute function counterfoil_refuse('a dedupe key is kept for ever');

create trigger effects_final before update on effects for each row when (
    old.settled_at is not null and (new.state, new.outcome, new.settled_at, new.attempt, new.provider, new.provider_ref)
        is distinct from (old.state, old.outcome, old.settled_at, old.attempt, old.provider, old.provider_ref))
    execute function counterfoil_refuse('a settled effect is final');

create trigger effects_frozen before update on effects for each row when (
    (new.id, new.tenant, new.kind, new.dedupe_key, new.fingerprint, new.policy, new.amount, new.currency,
     new.caused_by, new.created_at)
        is distinct from (old.id, old.tenant, old.kind, old.dedupe_key, old.fingerprint, old.policy, old.amount,
                          old.currency, old.caused_by, old.created_at)
    or (new.request is not null and new.request is distinct from old.request))
    execute function counterfoil_refuse('what was accepted is frozen');

create trigger effects_monotonic before update on effects for each row when (
    new.attempt < old.attempt
    or (old.first_sent_at is not null and new.first_sent_at is distinct from old.first_sent_at))
    execute function counterfoil_refuse('attempts only grow and first_sent_at never changes');
"""

MOVES = """
create trigger effects_transition before update on effects for each row when (
    new.state <> old.state and (old.state || '>' || new.state) not in (TRANSITION_LIST))
    execute function counterfoil_refuse('no such transition of the state machine');
"""

VIEWS = """
create view charges as
select id, tenant, dedupe_key, state, amount, currency, provider,
       coalesce(provider_ref, progress ->> 'payment_intent') as payment_intent, outcome ->> 'charge' as charge,
       outcome ->> 'code' as failure_code, outcome ->> 'decline_code' as decline_code, attempt as attempts, in_doubt,
       created_at, first_sent_at, settled_at
from effects where kind = 'charge';

create view emails as
select id, tenant, dedupe_key, state, provider, provider_ref, caused_by, policy,
       coalesce((outcome ->> 'possible_duplicate')::boolean, false) as possible_duplicate,
       outcome ->> 'code' as failure_code, attempt as attempts, in_doubt, created_at, first_sent_at, settled_at
from effects where kind = 'email';

comment on view charges is 'For finance: amounts in minor units of the currency, times in UTC.';
comment on view emails is 'For finance and support: no addresses, no bodies.';
"""


def upgrade() -> None:
    for part in (EFFECTS, OUTBOX, JOURNAL, GUARDS, MOVES, VIEWS):
        op.execute(part.replace("CURRENCY_LIST", CURRENCIES).replace("TRANSITION_LIST", TRANSITIONS))


def downgrade() -> None:
    op.execute("drop view emails; drop view charges")
    op.execute("drop table journal; drop table outbox; drop table effects; drop function counterfoil_refuse()")
