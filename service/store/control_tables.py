"""The tables of those who look after effects: operators, API keys, and what all workers share about a provider.

operations  one verb upon many effects, frozen as a plan, driven by the relay; operation_items: the frozen set
group_notes what people wrote about a group of failures; lanes: those that somebody has paused
actions     one write that concerns no single effect: the operators' log (what concerns one stands in the journal)
api_keys    one key of one tenant
purges      how far old requests are purged; kept_requests: those that were passed by
buckets     a provider account's tokens; circuits: providers that fail again and again
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from service.store import tables

metadata = tables.metadata

_EMPTY = text("'{}'::jsonb")
_CLOCK = text("clock_timestamp()")
_TIME = DateTime(timezone=True)

operations = Table(
    "operations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("verb", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'planned'")),
    Column("selector", JSONB, nullable=False),
    Column("tenant", Text),
    Column("total", BigInteger, nullable=False),
    Column("skipped", JSONB, nullable=False, server_default=_EMPTY),
    Column("money", JSONB, nullable=False, server_default=_EMPTY),
    Column("more", Boolean, nullable=False, server_default=text("false")),
    Column("planned_by", Text, nullable=False),
    Column("planned_at", _TIME, nullable=False, server_default=_CLOCK),
    Column("expires_at", _TIME, nullable=False),
    Column("reason", Text),
    Column("started_by", Text),
    Column("started_at", _TIME),
    Column("per_second", Double, comment="pace; NULL is as fast as the window allows"),
    Column(
        "canary",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="so many first effects must succeed before the others begin",
    ),
    Column("failures_max", BigInteger),
    Column("batch", BigInteger, nullable=False, server_default=text("100"), comment="effects of one commit"),
    Column("paced_at", _TIME),
    Column("paced_from", BigInteger, nullable=False, server_default=text("0")),
    Column("beat_at", _TIME, comment="when a relay last looked after it"),
    Column("paused_at", _TIME),
    Column("stop_reason", Text),
    Column("finished_at", _TIME),
    Index("operations_open", "started_at", postgresql_where=text("state in ('running', 'paused')")),
    Index("operations_planned_at", "planned_at"),
    comment="One verb upon many effects: planned, then carried out by the relay, with a reason.",
)

operation_items = Table(
    "operation_items",
    metadata,
    Column("operation_id", Uuid, ForeignKey("operations.id"), primary_key=True),
    # No foreign key, as in the journal: effects are never deleted, and a plan should not lock them.
    Column("effect_id", Uuid, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("seen_state", Text, nullable=False),
    Column("seen_attempt", BigInteger, nullable=False),
    Column("result", Text, nullable=False, server_default=text("'waiting'")),
    Column("why", Text),
    Column("done_at", _TIME),
    Column("ended", Text),
    UniqueConstraint("operation_id", "position", name="operation_items_position"),
    Index("operation_items_effect", "effect_id"),
    comment="The frozen set of an operation: one effect, as it was seen, and what became of it.",
)

group_notes = Table(
    "group_notes",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant", Text),
    Column("note", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("at", _TIME, nullable=False, server_default=_CLOCK),
    comment="What people wrote about a group of failures.",
)

lanes = Table(
    "lanes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused_at", _TIME),
    Column("paused_by", Text),
    Column("pause_reason", Text),
    comment="A lane that somebody has paused: what is due there is held, not published.",
)

actions = Table(
    "actions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _TIME, nullable=False, server_default=_CLOCK),
    Column("actor", Text, nullable=False),
    Column("door", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text),
    Column("detail", JSONB, nullable=False, server_default=_EMPTY),
    Index("actions_subject", "subject", "id"),
    comment="One write of a person or key that concerns no single effect: the operators' log, append-only.",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("per_second", Double),
    Column("burst", BigInteger),
    Column("tokens", Double, comment="requests that may begin now, as of filled_at"),
    Column("filled_at", _TIME),
    Column("created_at", _TIME, nullable=False, server_default=_CLOCK),
    Column("created_by", Text, nullable=False),
    Column("expires_at", _TIME),
    Column(
        "rotates",
        Text,
        ForeignKey("api_keys.id"),
        comment="the key that this one takes over from; both live until the older one expires",
    ),
    Column("revoked_at", _TIME),
    Column("revoked_by", Text),
    Column("used_at", _TIME, comment="to the minute: a write a minute, not one a request"),
    UniqueConstraint("hash", name="api_keys_hash"),
    # Written by each request of a key that has a rate: heap-only, beside its last version.
    postgresql_with={"fillfactor": "50"},
    comment="One key of one tenant: its hash, never itself.",
)

buckets = Table(
    "buckets",
    metadata,
    Column("account", Text, primary_key=True),
    Column("costs", JSONB, nullable=False, comment="kind to calls: what one effect takes"),
    Column("per_second", Double, nullable=False),
    Column("burst", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column(
        "granted",
        Double,
        nullable=False,
        server_default=text("0"),
        comment="what the last taker got: how a single statement can answer it",
    ),
    Column("filled_at", _TIME, nullable=False, server_default=text("now()")),
    comment="A provider account's tokens: how many calls all workers together may begin now.",
)

circuits = Table(
    "circuits",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("failures", BigInteger, nullable=False, server_default=text("0"), comment="in a row, over all workers"),
    Column("opened_at", _TIME),
    Column("probe_at", _TIME),
    Column(
        "probes",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="failed ones since it was opened: the next one waits longer",
    ),
    Column("last_error", Text),
    comment="A provider that fails again and again: nothing is claimed for it before probe_at.",
)

purges = Table(
    "purges",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("until", _TIME, nullable=False),
    Column("done", BigInteger, nullable=False, server_default=text("0")),
    Column("at", _TIME, nullable=False, server_default=_CLOCK),
    comment="How far old requests are purged: what was settled before is, or stands in kept_requests.",
)

kept_requests = Table(
    "kept_requests",
    metadata,
    # No foreign key, as in the journal: effects are never deleted.
    Column("effect_id", Uuid, primary_key=True),
    Column("why", Text, nullable=False),
    Column("at", _TIME, nullable=False, server_default=_CLOCK),
    comment="A request that is old enough to be purged and may still be needed.",
)
