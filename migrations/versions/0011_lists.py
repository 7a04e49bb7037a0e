"""Lists by kind and by how an effect stands are found by an index each, however long a tenant's history is.

Beside the writers, and beside the code of before: a column with a default (no row is rewritten) that a trigger fills
in, old rows marked a few blocks a commit, then the indexes. Whatever interrupts it, it is run again and goes on.

Revision: 0011
"""

from alembic import op
from sqlalchemy import text

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# As in 0009: beside the writers a scan may take as long as it takes; env.py's limits are set again behind it.
PATIENT = "set statement_timeout = 0; set lock_timeout = '10min'"
LIMITS = "set statement_timeout = 60000; set lock_timeout = 3000"

# `state` may stand in no index, nor in the condition of one: each claim would cease to be a heap-only update. So the one
# thing that a list has to find is kept beside it, and changes once in the life of an effect at most. The trigger fills
# it in, for the code of before as well; its WHEN is evaluated without a call, so other writes pay next to nothing. The
# check holds where triggers do not run (a subscriber of logical replication, pg_restore --disable-triggers).
FAILED = """
alter table effects
    add column if not exists failed boolean not null default false,
    -- squawk-ignore ban-drop-constraint
    drop constraint if exists effects_failed_state,
    add constraint effects_failed_state check (failed = (state = 'failed')) not valid;

create or replace function counterfoil_mark_failed() returns trigger language plpgsql as $$
begin
    new.failed := new.state = 'failed';
    return new;
end $$;

create or replace trigger effects_marked before insert or update on effects for each row when (
    new.failed is distinct from (new.state = 'failed'))
    execute function counterfoil_mark_failed();

comment on column effects.failed is 'state = ''failed'', for the index effects_failed; a trigger keeps it';
"""

# The rows of before, by blocks: what was written since the trigger is there is right already, wherever it lies. Before
# the index exists, so that the marks are heap-only. Whoever meets a purge or an erasure of the same rows takes the same
# blocks again.
MARKS = """
do $$ declare
    step constant bigint := 256;
    blocks constant bigint := pg_relation_size('effects') / current_setting('block_size')::bigint;
    block bigint := 0;
begin
    while block <= blocks loop
        begin
            update effects set failed = true
            where ctid >= format('(%s,0)', block)::tid and ctid < format('(%s,0)', block + step)::tid
              and state = 'failed' and not failed;
            block := block + step;
        exception when deadlock_detected or lock_not_available then
            null;
        end;
        commit;
    end loop;
end $$
"""

# All of them are of columns that no claim changes. A settlement, which gives most effects a provider's reference and so
# is no heap-only update anyway, moves its row from the
# last but one into the last.
INDEXES = {
    "effects_tenant_kind": "effects (tenant, kind, id)",
    "effects_failed": "effects (tenant, id) where failed",
    "effects_failed_newest": "effects (id) where failed",
    "effects_unsettled": "effects (tenant, id) where settled_at is null",
    "effects_succeeded": "effects (tenant, id) where settled_at is not null and not failed",
}


def upgrade() -> None:
    op.execute(FAILED)
    with op.get_context().autocommit_block():
        _each(PATIENT)
        op.execute(MARKS)
        for name, what in INDEXES.items():
            # One that an interrupted run has finished is kept; an unfinished one would be taken for a good one.
            if not _built(name):
                op.execute(f"drop index concurrently if exists {name}")
                op.execute(f"create index concurrently {name} on {what}")
        op.execute("alter table effects validate constraint effects_failed_state")
        # Until it has been counted, the planner would take half of all effects for failures.
        op.execute("analyze effects (failed, settled_at)")
        _each(LIMITS)


def _each(statements: str) -> None:
    for statement in statements.split(";"):
        op.execute(statement)


def _built(index: str) -> bool:
    if op.get_context().as_sql:
        return False
    found = text("select indisvalid from pg_index where indexrelid = to_regclass(:index)")
    return bool(op.get_bind().execute(found, {"index": index}).scalar())


def downgrade() -> None:
    op.execute("drop index effects_succeeded; drop index effects_unsettled; drop index effects_tenant_kind")
    op.execute("drop trigger effects_marked on effects; drop function counterfoil_mark_failed()")
    op.execute("alter table effects drop column failed")  # with its check and its indexes
