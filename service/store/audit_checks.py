"""The classes of break, each as one question to the tables of an audit: the rows it returns are the breaks.

    subject       what the break is about: an effect, an object of the provider, an event, a currency
    at            when that was; a break whose time lies in a later audit's window and is not found again says so
    detail        what a person needs to begin with

`:since` and `:until` bound the window. Whatever is younger than the settle lag lies after `:until`.
"""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One class of break: its name, what it means in a sentence, and the question."""

    name: str
    meaning: str
    sql: str


OF_OWN = """cast(o.id as text) as subject, o.id as effect_id, o.provider, coalesce(o.ref, o.intent) as provider_ref,
    o.amount, o.currency"""

MISSING = Check(
    "missing_at_provider",
    "we say it succeeded, and the provider has no such movement of money",
    f"""
select {OF_OWN}, o.settled_at as at,
       jsonb_build_object('kind', o.kind, 'provider_says', coalesce(i.status, r.status, 'no such object')) as detail
from own o
left join seen_intents i on i.id = o.intent and o.kind <> 'refund'
left join seen_refunds r on r.id = o.ref and o.kind = 'refund'
where o.counted and o.state = 'succeeded' and case o.kind
    when 'charge' then not exists (select from money m where m.id = o.intent)
        -- Settled by a person without a reference: any money that names the effect will do.
        and not exists (select from money m where o.ref is null and m.effect = o.id)
    when 'capture' then not exists (select from money m where m.id = o.intent)
    when 'refund' then not exists (select from given_back g where g.id = o.ref)
        and not exists (select from given_back g where o.ref is null and g.effect = o.id)
    when 'cancel' then i.status is distinct from 'canceled'
    else false end
""",
)

AMOUNT = Check(
    "amount_mismatch",
    "both sides have it, with different amounts or currencies",
    f"""
with theirs as (
    select o.id, m.amount, m.currency, i.amount as authorised, c.id as capture
    from own o join money m on m.id = o.intent
    left join seen_intents i on i.id = o.intent
    left join own c on c.concerns = o.id and c.kind = 'capture' and c.state = 'succeeded'
    where o.kind = 'charge'
    union all
    select o.id, m.amount, m.currency, null, null from own o join money m on m.id = o.intent where o.kind = 'capture'
    union all
    select o.id, g.amount, g.currency, null, null from own o join given_back g on g.id = o.ref where o.kind = 'refund'
)
select {OF_OWN}, o.settled_at as at,
       jsonb_build_object('kind', o.kind, 'provider_amount', coalesce(t.authorised, t.amount),
                          'provider_currency', t.currency) as detail
from own o join theirs t on t.id = o.id
where o.counted and o.state = 'succeeded' and (
    t.currency <> o.currency
    -- What was taken of an authorised charge is its capture's business; the charge asked for the whole.
    or case when t.capture is null then t.amount <> o.amount else t.authorised <> o.amount end)
""",
)


def _twice(table: str, kind: str) -> str:
    """More than one object for one effect; the one we have recorded counts, however old it is."""
    ref = "intent" if kind == "charge" else "ref"
    return f"""
with objects as (
    select effect, id, amount, created from {table} where effect is not null
    union all
    select o.id, o.{ref}, 0, null from own o
    where o.kind = '{kind}' and o.state = 'succeeded' and o.{ref} is not null
      and exists (select from {table} t where t.effect = o.id)
), doubled as (
    select effect, array_agg(distinct id) as ids, sum(amount) as moved, max(created) as at from objects group by effect
    having count(distinct id) > 1 and bool_or(created >= :since and created < :until)
)
select cast(d.effect as text) as subject, d.effect as effect_id, 'stripe' as provider, o.ref as provider_ref,
       o.amount, o.currency, d.at, jsonb_build_object('objects', d.ids, 'moved', d.moved, 'state', o.state) as detail
from doubled d left join own o on o.id = d.effect
"""


DUPLICATE = Check("duplicate_effect", "one effect has moved money more than once", _twice("money", "charge"))
DUPLICATE_REFUND = Check(
    "duplicate_refund", "one refund has been given back more than once", _twice("given_back", "refund")
)

ORPHAN = Check(
    "orphan_at_provider",
    "the provider has moved or holds money that no effect of ours asked for",
    """
with held as (
    select 'charge' as kind, id, effect, amount, currency, created, 'succeeded' as status from money
    union all select 'charge', id, effect, amount, currency, created, status from seen_intents
        where status in ('requires_capture', 'processing')
    union all select 'refund', id, effect, amount, currency, created, status from given_back
    union all select 'email', id, effect, null, null, created, 'accepted' from seen_letters
)
select h.kind || ' ' || h.id as subject, h.effect as effect_id,
       case when h.kind = 'email' then null else 'stripe' end as provider, h.id as provider_ref, h.amount, h.currency,
       h.created as at, jsonb_build_object('kind', h.kind, 'status', h.status) as detail
from held h
where h.created >= :since and h.created < :until
  and not exists (select from own o where o.id = h.effect and o.kind = h.kind)
  -- Ours by the reference we hold, whatever became of its metadata.
  and not exists (select from own o where o.kind = 'charge' and h.kind = 'charge' and o.intent = h.id)
  and not exists (select from own o where o.kind = 'refund' and h.kind = 'refund' and o.ref = h.id)
""",
)

FALSE_NEGATIVE = Check(
    "false_negative",
    "we say it was not done, and the provider has done it",
    f"""
with done as (
    select o.id, m.id as found, m.created from own o join money m on m.effect = o.id where o.kind = 'charge'
    union all
    select o.id, m.id, m.created from own o join money m on m.id = o.intent where o.kind = 'charge'
    union all
    select o.id, g.id, g.created from own o join given_back g on g.effect = o.id where o.kind = 'refund'
    union all
    select o.id, l.id, l.created from own o join seen_letters l on l.effect = o.id where o.kind = 'email'
)
select {OF_OWN}, coalesce(o.settled_at, d.created) as at,
       jsonb_build_object('kind', o.kind, 'state', o.state, 'found', d.found) as detail
from own o join done d on d.id = o.id
where (o.state = 'failed' or (o.state = 'pending' and not o.in_doubt))
  and (o.counted or (d.created >= :since and d.created < :until))
""",
)

OVER_REFUND = Check(
    "over_refund",
    "more has been given back than was taken",
    """
with back as (
    select intent, id, amount, currency, created from given_back where intent is not null
    union all  -- refunds of other windows, from our own books
    select o.intent, o.ref, o.amount, o.currency, o.settled_at from own o
    where o.kind = 'refund' and o.state = 'succeeded' and o.intent is not null
      and not exists (select from seen_refunds r where r.id = o.ref)
), sums as (
    select intent, sum(amount) as amount, min(currency) as currency, max(created) as at, array_agg(id) as ids from back
    group by intent having bool_or(created >= :since and created < :until)
), taken as (
    select s.intent, o.id as effect_id, coalesce(
        (select m.amount from money m where m.id = s.intent limit 1),
        (select c.amount from own c where c.concerns = o.id and c.kind = 'capture' and c.state = 'succeeded'),
        o.amount) as amount
    from sums s left join own o on o.kind = 'charge' and o.intent = s.intent
)
select s.intent as subject, t.effect_id, 'stripe' as provider, s.intent as provider_ref,
       cast(s.amount - t.amount as bigint) as amount, s.currency, s.at,
       jsonb_build_object('taken', t.amount, 'given_back', s.amount, 'refunds', s.ids) as detail
from sums s join taken t on t.intent = s.intent where s.amount > t.amount
""",
)

# The balance lines of effects that were settled in the window, and whatever moved in it that no success of ours
# explains. What a later or earlier window accounts for, and what is not settled yet, is on neither side.
LEDGER_SUMS = """
with moved as (
    select m.created, m.fee, o.id as own, o.state, o.in_doubt,
           m.type not in ('charge', 'payment', 'refund', 'payment_refund') as reversal, o.counted,
           -- Not the object that the effect holds; one that holds none yet (its answer was lost) may still find it.
           case when m.type in ('charge', 'payment') then m.intent <> o.intent else m.source <> o.ref end
               is true as foreign_object,
           -- A line in another currency than its source was converted on the way into the account.
           case when m.currency = m.source_currency then m.amount else m.source_amount end as amount,
           m.source_currency as currency
    from seen_movements m
    -- By the reference we hold, else by the effect that it names: after a restore an effect holds an object that names
    -- its forgotten predecessor.
    left join lateral (
        select r.*, 1 as turn from own r
        where m.type in ('charge', 'payment') and r.kind = 'charge' and r.intent = m.intent
        union all
        select r.*, 1 from own r where m.type not in ('charge', 'payment') and r.kind = 'refund' and r.ref = m.source
        union all
        select r.*, 2 from own r
        where r.id = m.effect and r.kind = case when m.type in ('charge', 'payment') then 'charge' else 'refund' end
        order by turn limit 1) o on true
), theirs as (
    select currency, sum(amount) as amount, sum(fee) as fees from moved
    where case when state = 'succeeded' and not foreign_object and not reversal then counted
               when reversal or own is null or foreign_object or state in ('succeeded', 'failed')
                   or (state = 'pending' and not in_doubt) then created >= :since and created < :until
               else false end
    group by currency
), ours as (
    select o.currency, sum(case o.kind when 'refund' then -o.amount else coalesce(c.amount, o.amount) end) as amount
    from own o left join own c on c.concerns = o.id and c.kind = 'capture' and c.state = 'succeeded'
    where o.counted and o.state = 'succeeded' and o.kind in ('charge', 'refund') group by o.currency
)
select currency, cast(coalesce(o.amount, 0) as bigint) as own, cast(coalesce(t.amount, 0) as bigint) as provider,
       cast(coalesce(t.fees, 0) as bigint) as fees
from ours o full join theirs t using (currency)
"""

LEDGER = Check(
    "ledger_drift",
    "the sum of what we settled is not the sum of what the account shows, fees apart",
    f"""
select currency as subject, cast(null as uuid) as effect_id, 'stripe' as provider, cast(null as text) as provider_ref,
       provider - own as amount, currency, cast(null as timestamptz) as at,
       jsonb_build_object('own', own, 'provider', provider, 'fees', fees, 'since', cast(:since as timestamptz),
                          'until', cast(:until as timestamptz)) as detail
from ({LEDGER_SUMS}) sums where own <> provider
""",
)

MONEY_CHECKS = (
    DUPLICATE,
    MISSING,
    AMOUNT,
    ORPHAN,
    FALSE_NEGATIVE,
    OVER_REFUND,
    DUPLICATE_REFUND,
    LEDGER,
)

HEADLINE = """
select objects, count(*) as effects from (
    select effect, count(distinct id) as objects from (
        select effect, id, created from money where effect is not null
        union all
        select o.id, o.intent, null from own o where o.kind = 'charge' and o.state = 'succeeded'
            and o.intent is not null and exists (select from money t where t.effect = o.id)) named
    group by effect having bool_or(created >= :since and created < :until)) counted
group by objects order by objects
"""
