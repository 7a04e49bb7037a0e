"""Classes of break about duties: who sent what under which key, what is stuck, and what should have followed.

Asked like those of money (`audit_checks`), of the same tables, and of outbox and inbox as they stand now.
"""

from __future__ import annotations

from service.store.audit_checks import MONEY_CHECKS, OF_OWN, Check

STUCK = Check(
    "stuck",
    "not settled, and longer so than anything but a person can mend",
    f"""
select {OF_OWN}, cast(null as timestamptz) as at,
       jsonb_build_object('kind', o.kind, 'state', o.state, 'in_doubt', o.in_doubt,
                          'waits_since', coalesce(x.parked_at, o.lease_until, o.waits_since)) as detail
from own o left join outbox x on x.effect_id = o.id
where case
    when o.state = 'unknown' or (o.state = 'pending' and o.in_doubt)
        then o.waits_since < now() - make_interval(secs => :unknown)
    when o.state = 'executing' then o.lease_until < now() - make_interval(secs => :dead_lease)
    when o.state = 'awaiting' then o.waits_since < now() - make_interval(secs => :awaiting)
    when o.state = 'parked' then x.parked_at < now() - make_interval(secs => :parked)
    else false end
""",
)

# One string for ever for each step (I6): made of the effect's id, or of an effect's that acts upon it.
KEY_BUMP = Check(
    "illegal_key_bump",
    "one step of an effect was sent under two idempotency keys, or under one that is not ours",
    """
with sent as (
    select e.effect, e.key, e.created, o.amount, o.currency, o.ref, o.concerns,
           case e.type when 'payment_intent.created' then 'create' when 'refund.created' then 'refund'
                       else 'confirm' end as step,
           split_part(lower(e.key), ':', 1) as by
    from seen_events e join own o on o.id = e.effect
    where e.key is not null and e.created >= :since and e.created < :until
), doubtful as (
    select effect, step, array_agg(distinct key) as keys, max(created) as at from sent s
    where by = cast(effect as text)
       or not exists (select from own d where d.concerns = s.effect and cast(d.id as text) = s.by)
    group by effect, step
    having count(distinct key) > 1 or bool_or(by <> cast(effect as text))
)
select cast(d.effect as text) || ' ' || d.step as subject, d.effect as effect_id, 'stripe' as provider,
       o.ref as provider_ref, o.amount, o.currency, d.at,
       jsonb_build_object('step', d.step, 'keys', d.keys) as detail
from doubtful d join own o on o.id = d.effect
""",
)

PARAM_DRIFT = Check(
    "param_drift",
    "the same key was sent with other parameters than before",
    """
with refused as (
    select f.effect, f.at, jsonb_build_object('said', 'idempotency_error') as detail from facts f
    where 'idempotency_error' in (f.evidence ->> 'code', f.evidence ->> 'reason')
      and f.at >= :since and f.at < :until
), forgotten as (  -- a provider that compares nothing, or had forgotten the key
    select (array_agg(effect) filter (where effect is not null))[1] as effect, max(created) as at,
           jsonb_build_object('key', key, 'objects', array_agg(distinct object_id)) as detail
    from seen_events
    where type in ('payment_intent.created', 'refund.created') and key is not null
      and created >= :since and created < :until
    group by key having count(distinct object_id) > 1 and count(distinct (amount, currency, effect)) > 1
), other as (
    select o.id, i.created, jsonb_build_object('customer', i.customer) from own o join seen_intents i on i.id = o.intent
    where o.kind = 'charge' and i.effect = o.id and o.customer is not null and i.customer is distinct from o.customer
      and i.created >= :since and i.created < :until
), drifted as (select * from refused union all select * from forgotten union all select * from other)
select coalesce(cast(d.effect as text), d.detail ->> 'key') as subject, d.effect as effect_id, 'stripe' as provider,
       o.ref as provider_ref, o.amount, o.currency, d.at, d.detail
from drifted d left join own o on o.id = d.effect
""",
)

# In doubt: an earlier attempt may have been carried out, and no absence was proven since. Then the key may not go out
# again after the horizon, when the provider may have forgotten it (Stripe: Idempotent requests). A confirm may.
STALE_SEND = Check(
    "stale_key_send",
    "a key was sent again when the provider may have forgotten it already",
    """
with late as (
    select e.effect, e.created as at, null as id, null as attempt, jsonb_build_object('object', e.object_id) as detail
    from seen_events e join own o on o.id = e.effect
    where e.type in ('payment_intent.created', 'refund.created')
      and e.created > o.first_sent_at + make_interval(secs => :horizon)
    union all
    select f.effect, f.at, f.id, f.attempt, jsonb_build_object('fact', f.fact, 'attempt', f.attempt)
    from facts f join own o on o.id = f.effect
    where f.at > o.first_sent_at + make_interval(secs => :horizon + :dead_lease) and case
        when o.kind = 'email' then o.provider = 'resend' and f.evidence ? 'status'
        -- `replayed` stands in the evidence of a call, and only there; without a status it may have gone out or not.
        else f.evidence ->> 'step' in ('create', 'refund') and f.evidence ? 'replayed'
             and (f.evidence ? 'status' or f.fact = 'unknown') end
)
select cast(l.effect as text) as subject, l.effect as effect_id, 'stripe' as provider, o.ref as provider_ref,
       o.amount, o.currency, l.at, l.detail
from late l join own o on o.id = l.effect
where l.at >= :since and l.at < :until and exists (
    select from facts d where d.effect = l.effect and d.fact in ('unknown', 'leased_out')
      and d.at < l.at and (l.attempt is null or d.attempt < l.attempt)
      and not exists (select from facts a where a.effect = d.effect and a.fact = 'absent'
                      and a.id > d.id and a.at <= l.at and (l.id is null or a.id < l.id)))
""",
)

FOLLOW_UP = Check(
    "missing_followup",
    "a charge that asked for a receipt has not caused exactly one",
    f"""
select {OF_OWN}, o.settled_at as at, jsonb_build_object('receipts', f.receipts) as detail
from own o cross join lateral (
    select count(*) as receipts from effects e where e.caused_by = o.id and e.kind = 'email') f
where o.counted and o.state = 'succeeded' and o.kind = 'charge' and o.receipt and f.receipts <> 1
""",
)

OUTBOX_STUCK = Check(
    "outbox_stuck",
    "a duty to deliver that nobody has taken up, or an unsettled effect without one (I7)",
    f"""
select {OF_OWN}, cast(null as timestamptz) as at,
       jsonb_build_object('road', coalesce(x.road, 'no outbox row'), 'lane', x.lane, 'due', x.available_at) as detail
from own o left join outbox x on x.effect_id = o.id
where (o.settled_at is not null and x.effect_id is not null)
   -- Asked of the effect itself once more: it may have been settled since we took our side.
   or (x.effect_id is null and exists (select from effects e where e.id = o.id and e.settled_at is null))
   or (x.road in ('fresh', 'later', 'published') and x.available_at < now() - make_interval(secs => :undelivered))
""",
)

DUPLICATE_EMAIL = Check(
    "duplicate_email",
    "more copies of a letter than its provider and policy allow",
    f"""
with copies as (
    select effect as id, recipient, count(*) as copies, max(created) as at from seen_letters
    group by effect, recipient having count(*) > 1 and bool_or(created >= :since and created < :until)
    union all  -- without the provider's list: replies to the final dot that the journal has kept
    select o.id, o.recipient, count(*), max(j.at) from own o join journal j on j.effect_id = o.id
    where o.kind = 'email' and o.provider = 'smtp' and o.counted and not :mail
      and (j.fact = 'succeeded' or (j.fact = 'late_answer' and j.evidence ->> 'answer' = 'succeeded'))
    group by o.id, o.recipient having count(*) > 1
)
select {OF_OWN}, c.at, jsonb_build_object('copies', c.copies, 'policy', o.policy) as detail
from copies c join own o on o.id = c.id and o.kind = 'email'
where not (o.flagged and o.policy = 'at_least_once' and o.provider is distinct from 'resend')
""",
)

LOST_EMAIL = Check(
    "lost_email",
    "we say a letter was accepted, and nothing shows it",
    f"""
select {OF_OWN}, o.settled_at as at, jsonb_build_object('policy', o.policy, 'ledger', cast(:mail as boolean)) as detail
from own o
where o.kind = 'email' and o.counted and o.state = 'succeeded' and case
    when :mail then not exists (select from seen_letters l
                                where l.effect = o.id and (o.recipient is null or l.recipient = o.recipient))
    -- Of an effect whose facts were dropped with their month nothing can be said.
    else (cast(:facts_from as timestamptz) is null or o.settled_at >= :facts_from) and not exists (
                     select from journal j
                     where j.effect_id = o.id and j.fact in ('succeeded', 'verified', 'resolved', 'recovered')) end
""",
)

# Types that the endpoint is subscribed to are those that have come lately. Nothing at all has come: one break says so.
MISSED_WEBHOOK = Check(
    "missed_webhook",
    "the provider has told something that is not in our inbox, or lies there unread",
    """
with told as (
    select t.type from (select distinct type from seen_events) t
    where exists (select from inbox i where i.provider = 'stripe' and i.type = t.type
                  and i.received_at > now() - interval '30 days')
), missed as (
    select e.id, e.effect, e.object_id, e.created as at,
           jsonb_build_object('type', e.type, 'why', 'not in the inbox') as detail
    from seen_events e join told using (type)
    where e.created >= :since and e.created < :until
      and not exists (select from inbox i where i.provider = 'stripe' and i.event_id = e.id)
    union all
    select 'every event', null, null, null, jsonb_build_object('why', 'the inbox is empty', 'events', count(*))
    from seen_events where :webhooks and not exists (select from inbox) having count(*) > 0
    union all
    select event_id, effect_id, object_id, null,
           jsonb_build_object('type', type, 'why', 'not processed', 'tries', tries)
    from inbox where processed_at is null and received_at < now() - make_interval(secs => :unread)
)
select id as subject, effect as effect_id, 'stripe' as provider, object_id as provider_ref,
       cast(null as bigint) as amount, cast(null as text) as currency, at, detail
from missed
""",
)

CONTRADICTION = Check(
    "late_contradiction",
    "what came late says the opposite of what was settled",
    f"""
with said as (
    select f.effect, f.at, jsonb_build_object('answer', f.evidence ->> 'answer', 'attempt', f.attempt) as detail,
           f.evidence ->> 'answer' as answer
    from facts f where f.fact = 'late_answer' and f.evidence ->> 'answer' in ('succeeded', 'failed')
    union all  -- a refund that was said to have succeeded may fail for days (Stripe: Refunds)
    select e.effect, e.created, jsonb_build_object('event', e.id, 'type', e.type), 'failed' from seen_events e
    where e.type = 'refund.failed'
)
select {OF_OWN}, s.at, jsonb_build_object('state', o.state) || s.detail as detail
from own o join said s on s.effect = o.id
where o.state in ('succeeded', 'failed') and s.answer <> o.state
  and (o.counted or (s.at >= :since and s.at < :until))
""",
)

CHECKS = (
    *MONEY_CHECKS,
    STUCK,
    KEY_BUMP,
    PARAM_DRIFT,
    STALE_SEND,
    FOLLOW_UP,
    OUTBOX_STUCK,
    DUPLICATE_EMAIL,
    LOST_EMAIL,
    MISSED_WEBHOOK,
    CONTRADICTION,
)
"""Every class, in the order in which a person should look: money first."""
