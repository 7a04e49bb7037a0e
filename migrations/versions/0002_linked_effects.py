"""Effects that act upon another one (refund, capture, cancel), and the facts of looking and resolving.

Revision: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LINKS = """
alter table effects
    add column concerns uuid,
    add column ready_when text,
    add constraint effects_concerns_fkey foreign key (concerns) references effects (id) not valid,
    add constraint effects_ready check (
        (concerns is null) = (ready_when is null) and ready_when in ('settled', 'authorised')
        and concerns is distinct from id) not valid,
    -- squawk-ignore ban-drop-constraint
    drop constraint effects_charge_has_money,
    add constraint effects_has_money check (
        kind not in ('charge', 'refund', 'capture') or amount is not null) not valid;

comment on column effects.concerns is 'the effect this one acts upon: a refund''s charge';
comment on column effects.ready_when is 'what that effect must be before this one may be claimed';
"""

FACTS = """
alter table journal
    -- squawk-ignore ban-drop-constraint
    drop constraint journal_fact,
    add constraint journal_fact check (fact in (
        'accepted', 'claimed', 'progressed', 'leased_out', 'late_answer', 'deferred', 'awaiting', 'unknown', 'absent',
        'succeeded', 'failed', 'parked', 'unparked', 'replayed', 'hinted', 'verified', 'resolved', 'recovered'
        )) not valid;
"""

FROZEN = """
drop trigger effects_frozen on effects;
create trigger effects_frozen before update on effects for each row when (
    (new.id, new.tenant, new.kind, new.dedupe_key, new.fingerprint, new.policy, new.amount, new.currency,
     new.caused_by, new.concerns, new.ready_when, new.created_at)
        is distinct from (old.id, old.tenant, old.kind, old.dedupe_key, old.fingerprint, old.policy, old.amount,
                          old.currency, old.caused_by, old.concerns, old.ready_when, old.created_at)
    or (new.request is not null and new.request is distinct from old.request))
    execute function counterfoil_refuse('what was accepted is frozen');
"""

VIEW = """
create view refunds as
select id, tenant, dedupe_key, concerns as charge_effect, state, amount, currency, provider, provider_ref as refund,
       outcome ->> 'code' as failure_code, attempt as attempts, in_doubt, created_at, first_sent_at, settled_at
from effects where kind = 'refund';

comment on view refunds is 'For finance: amounts in minor units of the currency, times in UTC.';
"""


def upgrade() -> None:
    for part in (LINKS, FACTS, FROZEN, VIEW):
        op.execute(part)


def downgrade() -> None:
    op.execute("drop view refunds")
    op.execute("""
        alter table journal drop constraint journal_fact, add constraint journal_fact check (fact in (
            'accepted', 'claimed', 'progressed', 'leased_out', 'late_answer', 'deferred', 'awaiting', 'unknown',
            'succeeded', 'failed', 'parked', 'unparked', 'replayed', 'resolved')) not valid
    """)
    op.execute("drop trigger effects_frozen on effects")
    op.execute("""
        create trigger effects_frozen before update on effects for each row when (
            (new.id, new.tenant, new.kind, new.dedupe_key, new.fingerprint, new.policy, new.amount, new.currency,
             new.caused_by, new.created_at)
                is distinct from (old.id, old.tenant, old.kind, old.dedupe_key, old.fingerprint, old.policy, old.amount,
                                  old.currency, old.caused_by, old.created_at)
            or (new.request is not null and new.request is distinct from old.request))
            execute function counterfoil_refuse('what was accepted is frozen')
    """)
    op.execute("""
        alter table effects drop constraint effects_has_money, drop constraint effects_ready,
            drop column concerns, drop column ready_when,
            add constraint effects_charge_has_money check (kind <> 'charge' or amount is not null) not valid
    """)
