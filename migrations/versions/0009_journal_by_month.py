"""The journal by months, so that old months can go in one piece; what a purge has to remember; lists by tenant.

No fact is copied and no long scan happens under a lock: what is long (an index, a check) is done beforehand, beside
the writers, and the exchange itself only touches the catalogue. The old table becomes the first partition.

Revision: 0009
"""

from alembic import op
from sqlalchemy import text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Beside the writers an index or a check may take hours, and nobody waits for it; env.py's limits are for what they
# would wait for, and are set again behind it.
PATIENT = "set statement_timeout = 0; set lock_timeout = '10min'"
BRIEF = "set lock_timeout = 3000"
LIMITS = "set statement_timeout = 60000; set lock_timeout = 3000"

# What came before the month after next, or later where a clock was once wrong. So far ahead because the check holds for
# live writers from here on: whoever is interrupted between this and the exchange has a month to run the migration again
# before a fact would be refused.
UNTIL = """
do $$ declare
    soon timestamp := date_trunc('month', now() at time zone 'UTC') + interval '2 months';
    last timestamp := (select date_trunc('month', max(at) at time zone 'UTC') + interval '1 month' from journal);
begin
    alter table journal drop constraint if exists journal_until;
    execute format('alter table journal add constraint journal_until check (at < %L) not valid',
                   greatest(soon, last) at time zone 'UTC');
end $$
"""

# An identity column cannot be partitioned before Postgres 17, so the numbers come from a sequence that the column
# owns; it goes on where the identity was, because `incarnations.last_fact` compares them across the change.
NUMBERS = """
lock table journal in access exclusive mode;
create sequence journal_ids as bigint;
select setval('journal_ids', coalesce(n, 1), n is not null)
from pg_sequence_last_value(pg_get_serial_sequence('journal', 'id')::regclass) as s (n);
-- squawk-ignore ban-alter-identity
alter table journal alter column id drop identity;
-- squawk-ignore renaming-object
alter sequence journal_ids rename to journal_id_seq;
"""

EXCHANGE = """
drop trigger journal_append_only on journal;
alter table journal
    -- squawk-ignore ban-drop-constraint
    drop constraint journal_pkey,
    add constraint journal_first_pkey primary key using index journal_first_pkey;
-- squawk-ignore renaming-table
alter table journal rename to journal_first;

create table journal (like journal_first including defaults including constraints including comments)
    partition by range (at);
alter table journal
    alter column id set default nextval('journal_id_seq'),
    add constraint journal_pkey primary key (effect_id, id, at),
    -- squawk-ignore ban-drop-constraint
    drop constraint journal_until;
alter sequence journal_id_seq owned by journal.id;

-- The check proves the bound, so the table is not read through (PostgreSQL: Table Partitioning, 5.12.2.2).
do $$ begin
    execute format('alter table journal attach partition journal_first for values from (minvalue) to (%L)',
        (select substring(pg_get_constraintdef(oid) from '''([^'']+)''')::timestamptz from pg_constraint
         where conname = 'journal_until' and conrelid = 'journal_first'::regclass));
end $$;
-- squawk-ignore ban-drop-constraint
alter table journal_first drop constraint journal_until;

-- A fact is never refused for its date: what no month takes lies here.
create table journal_rest (like journal including defaults including constraints);
alter table journal attach partition journal_rest default;

create trigger journal_append_only before update or delete on journal
    for each row execute function counterfoil_refuse('the journal is append-only');
-- Row triggers are inherited by partitions, statement triggers are not: each partition has its own (journal_first has
-- kept it), and a TRUNCATE of the whole asks all of them.
create trigger journal_keep before truncate on journal_rest
    for each statement execute function counterfoil_refuse('the journal is append-only');

comment on table journal is 'One fact about an effect, append-only: a trigger refuses UPDATE, DELETE and TRUNCATE.';
comment on table journal_first is 'The facts of before the journal was kept by months.';
comment on table journal_rest is 'Facts that no month takes: none, unless months were not made ahead.';
"""

# Whoever could write the journal before, by whatever role, still can.
RIGHTS = """
do $$ declare g record; begin
    for g in select a.privilege_type as what, case when a.grantee = 0 then 'public' else a.grantee::regrole::text end
                 as who, a.is_grantable
             from pg_class c, aclexplode(c.relacl) a
             where c.oid = 'journal_first'::regclass and a.grantee <> c.relowner loop
        execute format('grant %s on journal to %s %s', g.what, g.who,
                       case when g.is_grantable then 'with grant option' else '' end);
        if g.what = 'INSERT' then
            execute format('grant usage on sequence journal_id_seq to %s', g.who);
        end if;
    end loop;
end $$
"""

# With the owner's rights, so that a worker that may write facts, and nothing else, can make room for them.
MONTHS = """
create function counterfoil_journal_months(ahead integer) returns text[] language plpgsql security definer
set timezone = 'UTC' as $$
declare
    made text[] := '{}';
    month timestamptz;
    name text;
begin
    perform pg_advisory_xact_lock(hashtext('counterfoil_journal_months'));
    select max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz) into month
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'journal'::regclass;
    while month <= date_trunc('month', now()) + make_interval(months => least(greatest(ahead, 0), 24)) loop
        name := to_char(month, '"journal_"YYYY"_"MM');
        begin
            execute format('create table %I (like journal including defaults including constraints)', name);
            execute format('create trigger journal_keep before truncate on %I for each statement'
                           ' execute function counterfoil_refuse(%L)', name, 'the journal is append-only');
            execute format('alter table journal attach partition %I for values from (%L) to (%L)',
                           name, month, month + interval '1 month');
            made := made || name;
        exception when check_violation then
            null; -- facts of this month lie in journal_rest already, and there they stay
        end;
        month := month + interval '1 month';
    end loop;
    return made;
end $$;

-- Not even its caller is believed: a month goes only when each effect that can have facts in it is settled since long.
create function counterfoil_journal_drop(partition text, settled_before timestamptz) returns void
language plpgsql security definer set timezone = 'UTC' set enable_seqscan = 'on' as $$
declare
    until timestamptz;
begin
    select (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz into until
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'journal'::regclass and c.relname = partition;
    if until is null or until > date_trunc('month', now()) or settled_before > now() - interval '1 day' then
        raise exception 'counterfoil: % is no month of the journal that has passed', partition
            using errcode = 'invalid_parameter_value';
    end if;
    if exists (select from outbox o join effects e on e.id = o.effect_id where e.created_at < until)
       or exists (select from effects e where e.settled_at >= settled_before and e.created_at < until) then
        raise exception 'counterfoil: % has facts of effects that are not settled for long enough', partition
            using errcode = 'object_in_use';
    end if;
    -- Not concurrently: Postgres refuses that beside a default partition. This waits for those who read the journal
    -- now, for as long as lock_timeout says, and touches the catalogue only.
    execute format('alter table journal detach partition %I', partition);
    execute format('drop table %I', partition);
end $$;

do $$ declare f text; begin
    foreach f in array array['counterfoil_journal_months(integer)', 'counterfoil_journal_drop(text, timestamptz)'] loop
        execute format('alter function %s set search_path = %I, pg_temp', f, current_schema());
        execute format('revoke all on function %s from public', f);
    end loop;
end $$;
"""

# What a purge has to remember between two runs: how far it is, and what it passed by.
PURGES = """
create table purges (
    subject text primary key,
    until timestamptz not null,
    done bigint not null default 0,
    at timestamptz not null default clock_timestamp(),
    constraint purges_subject check (subject = 'requests'),
    constraint purges_done check (done >= 0)
);

create table kept_requests (
    -- No foreign key, as in the journal: effects are never deleted.
    effect_id uuid primary key,
    why text not null,
    at timestamptz not null default clock_timestamp(),
    constraint kept_requests_why check (why in ('linked', 'break', 'operation', 'event', 'window'))
);

comment on table purges is 'How far old requests are purged: what was settled before is, or stands in kept_requests.';
comment on table kept_requests is 'A request that is old enough to be purged and may still be needed.';
"""

# Never updated much and inserted all the time: vacuumed by the ten thousand, so that neither the map of visible pages
# nor the summary of `effects_settled` falls behind a ledger of millions.
VACUUM = """
alter table effects set (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 10000)
"""

BACK = """
lock table journal in access exclusive mode;
alter sequence journal_id_seq owned by none;
alter table journal alter column id drop default;
do $$ begin
    if to_regclass('journal_first') is null then
        execute 'create table journal_first (like journal including constraints including comments)';
        execute 'alter table journal_first add primary key (effect_id, id, at)';
    else
        execute 'alter table journal detach partition journal_first';
        execute 'drop trigger journal_keep on journal_first'; -- made anew below
    end if;
end $$;
alter table journal_first alter column id drop default;
insert into journal_first select * from journal;
drop table journal;
alter table journal_first rename to journal;
alter table journal drop constraint journal_first_pkey, add constraint journal_pkey primary key (effect_id, id);
alter table journal alter column id add generated always as identity (sequence name journal_numbers);
select setval('journal_numbers', coalesce(n, 1), n is not null)
from pg_sequence_last_value('journal_id_seq'::regclass) as s (n);
drop sequence journal_id_seq;
alter sequence journal_numbers rename to journal_id_seq;
create trigger journal_append_only before update or delete on journal
    for each row execute function counterfoil_refuse('the journal is append-only');
create trigger journal_keep before truncate on journal
    for each statement execute function counterfoil_refuse('the journal is append-only');
comment on table journal is 'One fact about an effect, append-only: a trigger refuses UPDATE, DELETE and TRUNCATE.';
"""


def upgrade() -> None:
    context = op.get_context()
    with context.autocommit_block():
        _each(PATIENT)
        # An index that an interrupted run has finished is kept; an unfinished one would be taken for a good one.
        if not _built("journal_first_pkey"):
            op.execute("drop index concurrently if exists journal_first_pkey")
            op.execute("create unique index concurrently journal_first_pkey on journal (effect_id, id, at)")
        op.execute("drop index concurrently if exists effects_tenant")
        # For one tenant's lists, newest first. Neither column changes, so updates stay heap-only.
        op.execute("create index concurrently effects_tenant on effects (tenant, id)")
        _each(BRIEF)
        op.execute(UNTIL)
        _each(PATIENT)
        op.execute("alter table journal validate constraint journal_until")
        _each(LIMITS)
    for part in (NUMBERS, EXCHANGE, RIGHTS, MONTHS, PURGES, VACUUM):
        op.execute(part)
    op.execute("select counterfoil_journal_months(3)")


def _each(statements: str) -> None:
    for statement in statements.split(";"):
        op.execute(statement)


def _built(index: str) -> bool:
    if op.get_context().as_sql:
        return False
    found = text("select indisvalid from pg_index where indexrelid = to_regclass(:index)")
    return bool(op.get_bind().execute(found, {"index": index}).scalar())


def downgrade() -> None:
    op.execute("alter table effects reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, "
               "autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold, "
               "autovacuum_analyze_scale_factor, autovacuum_analyze_threshold)")
    op.execute("drop index effects_tenant; drop table kept_requests; drop table purges")
    op.execute("drop function counterfoil_journal_drop(text, timestamptz)")
    op.execute("drop function counterfoil_journal_months(integer)")
    # Facts of the months since are copied back while writers wait: a way back for a deploy that went wrong, not for
    # a ledger that has lived with months for a year.
    op.execute("set local statement_timeout = 0")
    op.execute(BACK)
