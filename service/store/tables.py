"""The tables as SQLAlchemy sees them; the checks and triggers that guard them stand in the migrations.

effects   one thing to be done once: the permanent record and the tombstone of its dedupe key
outbox    the duty to deliver one unsettled effect: small, hot, empty when all is done
journal   one fact about an effect: append-only
inbox     one event a provider has told us: a hint to look
audits    one comparison of our books with the provider's; breaks: what did not agree
incarnations   the lives of this database; orphans: what an earlier life left at the provider
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

_NOW = text("now()")
_EMPTY = text("'{}'::jsonb")
_TIME = DateTime(timezone=True)

effects = Table(
    "effects",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7, made by the caller's process: time-ordered, cheap to index"),
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("dedupe_key", Text, nullable=False, comment="the caller's name of this effect; kept for ever"),
    Column("fingerprint", Text, nullable=False, comment="sha-256 of the canonical request"),
    Column("request", JSONB, comment="frozen; NULL once purged"),
    Column("state", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False, server_default=text("0"), comment="the fencing token"),
    Column("lease_until", _TIME, comment="until when the current attempt owns the effect"),
    Column("not_before", _TIME, comment="eta or backoff: a message that arrives earlier executes nothing"),
    Column("first_sent_at", _TIME, comment="committed before the first byte goes out; never changes again"),
    Column("in_doubt", Boolean, nullable=False, server_default=text("false"), comment="may have been carried out"),
    Column(
        "budget_from",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="the attempt that the budget is counted from: 0, or the last rest or replay",
    ),
    Column(
        "patience_from",
        _TIME,
        comment="when the age limit begins: NULL is first_sent_at, else the last rest or replay",
    ),
    Column("progress", JSONB, nullable=False, server_default=_EMPTY, comment="recovery point"),
    Column("policy", Text, nullable=False, comment="after an unknown outcome at a blind provider"),
    Column("provider", Text),
    Column("provider_ref", Text, comment="the provider's own id"),
    Column("outcome", JSONB),
    Column("amount", BigInteger, comment="minor units"),
    Column("currency", Text, comment="lowercase ISO-4217"),
    Column("caused_by", Uuid, ForeignKey("effects.id"), comment="the effect whose success asked for this one"),
    Column("context", JSONB, nullable=False, server_default=_EMPTY, comment="trace context and request id"),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("settled_at", _TIME),
    Column("concerns", Uuid, ForeignKey("effects.id"), comment="the effect this one acts upon: a refund's charge"),
    Column("ready_when", Text, comment="what that effect must be before this one may be claimed"),
    Column(
        "failed",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="state = 'failed', for the index effects_failed; a trigger keeps it",
    ),
    UniqueConstraint("tenant", "kind", "dedupe_key", name="effects_dedupe_key"),
    Index(
        "effects_provider_ref",
        "provider",
        "provider_ref",
        unique=True,
        postgresql_where=text("provider_ref IS NOT NULL"),
    ),
    Index("effects_caused_by", "caused_by", postgresql_where=text("caused_by IS NOT NULL")),
    Index("effects_concerns", "concerns", postgresql_where=text("concerns IS NOT NULL")),
    # For one tenant's lists, newest first: all, of a kind, what has failed, what is under way.
    Index("effects_tenant", "tenant", "id"),
    Index("effects_tenant_kind", "tenant", "kind", "id"),
    Index("effects_failed", "tenant", "id", postgresql_where=text("failed")),
    Index("effects_failed_newest", "id", postgresql_where=text("failed")),
    Index("effects_unsettled", "tenant", "id", postgresql_where=text("settled_at IS NULL")),
    Index("effects_succeeded", "tenant", "id", postgresql_where=text("settled_at IS NOT NULL AND NOT failed")),
    # By blocks, for an audit's window: unlike the others it does not forbid heap-only updates (Postgres 16 and newer).
    Index("effects_settled", "settled_at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}),
    # `state` stands in no index on purpose: an indexed column that changes forbids heap-only updates.
    postgresql_with={
        "fillfactor": "70",
        # Inserted all the time: vacuumed by the ten thousand, not by the fifth of a ledger that keeps everything.
        "autovacuum_vacuum_scale_factor": "0.01",
        "autovacuum_vacuum_threshold": "10000",
        "autovacuum_vacuum_insert_scale_factor": "0.01",
        "autovacuum_vacuum_insert_threshold": "10000",
        "autovacuum_analyze_scale_factor": "0.02",
        "autovacuum_analyze_threshold": "10000",
    },
    comment="One thing to be done once: the permanent record, and the tombstone of its dedupe key.",
)

outbox = Table(
    "outbox",
    metadata,
    Column("effect_id", Uuid, ForeignKey("effects.id"), primary_key=True),
    Column("kind", Text, nullable=False, comment="the task name"),
    Column("lane", Text, nullable=False, comment="the Celery queue"),
    Column("priority", SmallInteger, nullable=False, server_default=text("0"), comment="0 to 9, 9 first"),
    Column("road", Text, nullable=False, comment="fresh, later, published, parked or held: which index holds the row"),
    Column("available_at", _TIME, nullable=False, server_default=_NOW, comment="when the row comes due (again)"),
    Column("deliveries", BigInteger, nullable=False, server_default=text("0")),
    Column("parked_at", _TIME),
    Column("parked_reason", Text),
    Column("last_error", Text),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    # Two roads (and the way out): fresh rows in their order, rows due again by time. Each row stands in exactly one
    # of these, so that a backlog of one sort never has to be read through to find the other.
    Index("outbox_fresh", text("priority DESC"), "effect_id", postgresql_where=text("road = 'fresh'")),
    Index("outbox_later", "available_at", postgresql_where=text("road = 'later'")),
    Index("outbox_published", "available_at", postgresql_where=text("road = 'published'")),
    Index("outbox_parked", "parked_at", postgresql_where=text("road = 'parked'")),
    Index("outbox_held", "lane", "available_at", postgresql_where=text("road = 'held'")),
    # And once more by kind, for a relay that may not publish all of them (provider limits).
    Index(
        "outbox_by_kind",
        "kind",
        "priority",
        "available_at",
        postgresql_where=text("road IN ('fresh', 'later', 'published')"),
    ),
    postgresql_with={
        "fillfactor": "70",
        # Rows live for milliseconds: vacuum by the thousand, not by the fraction of a table that is mostly empty.
        "autovacuum_vacuum_scale_factor": "0.0",
        "autovacuum_vacuum_threshold": "2000",
        "autovacuum_analyze_scale_factor": "0.0",
        "autovacuum_analyze_threshold": "5000",
        "autovacuum_vacuum_cost_delay": "0",
    },
    comment="The duty to deliver one unsettled effect; the row lives until the effect is settled.",
)

journal = Table(
    "journal",
    metadata,
    # No foreign key: each fact is written in one statement with its effect, which is never deleted; a key would
    # lock that effect's row once more for every fact. The key must contain what the table is partitioned by; the
    # numbers come from a sequence, since an identity cannot be partitioned before Postgres 17.
    Column("effect_id", Uuid, primary_key=True),
    Column(
        "id",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        server_default=text("nextval('journal_id_seq'::regclass)"),
    ),
    Column("at", _TIME, primary_key=True, server_default=text("clock_timestamp()")),
    Column("fact", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("actor", Text, nullable=False, comment="who wrote it: a process or a person"),
    Column("evidence", JSONB, nullable=False, server_default=_EMPTY, comment="status, request id, code; no payload"),
    postgresql_partition_by="RANGE (at)",
    comment="One fact about an effect, append-only: a trigger refuses UPDATE, DELETE and TRUNCATE.",
)

inbox = Table(
    "inbox",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("object_type", Text, nullable=False),
    Column("effect_id", Uuid, comment="what the object says of itself (metadata); not a reference, it may be anything"),
    Column("payment_intent", Text),
    Column("event_at", _TIME, nullable=False, comment="the provider's time; says nothing about order"),
    Column("received_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("available_at", _TIME, nullable=False, server_default=_NOW),
    Column("tries", BigInteger, nullable=False, server_default=text("0")),
    Column("processed_at", _TIME),
    Column("result", Text, comment="what came of looking"),
    Index("inbox_open", "available_at", postgresql_where=text("processed_at IS NULL")),
    Index("inbox_received", "received_at"),
    comment="One event a provider has told us, by its id: a hint to look, never a fact by itself.",
)

audits = Table(
    "audits",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("since", _TIME, nullable=False),
    Column("until", _TIME, nullable=False),
    Column("started_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("finished_at", _TIME),
    Column("actor", Text, nullable=False),
    Column("counts", JSONB, nullable=False, server_default=_EMPTY),
    comment="One comparison of our books with the provider's; the last finished one is the cursor.",
)

breaks = Table(
    "breaks",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("class", Text, nullable=False),
    Column(
        "subject", Text, nullable=False, comment="what it is about: an effect's id, a provider's object, a currency"
    ),
    Column("effect_id", Uuid),
    Column("provider", Text),
    Column("provider_ref", Text),
    Column("amount", BigInteger, comment="minor units"),
    Column("currency", Text),
    Column("detail", JSONB, nullable=False, server_default=_EMPTY),
    Column("first_audit", BigInteger, ForeignKey("audits.id")),
    Column("last_audit", BigInteger, ForeignKey("audits.id")),
    Column("found_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("seen_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("owner", Text),
    Column("note", Text),
    Column("closed_at", _TIME),
    Column("closed_by", Text),
    Index("breaks_open", "class", "subject", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("breaks_effect", "effect_id", postgresql_where=text("effect_id IS NOT NULL")),
    comment="One thing that does not agree, until a person closes it.",
)

incarnations = Table(
    "incarnations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("follows", BigInteger, nullable=False, comment="the id of the life before it; 0 for the first"),
    Column("system_identifier", Text, nullable=False),
    Column("database_oid", BigInteger, nullable=False),
    Column("timeline", BigInteger, nullable=False),
    Column(
        "last_fact",
        BigInteger,
        nullable=False,
        comment="the journal's last id when it began: what was accepted later was never sent by an earlier life",
    ),
    Column("began_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("quarantined_at", _TIME),
    Column("quarantine_reason", Text),
    Column("released_at", _TIME),
    Column("released_by", Text),
    Column("release_reason", Text),
    Column("counts", JSONB, nullable=False, server_default=_EMPTY),
    UniqueConstraint("follows", name="incarnations_chain"),
    comment="The lives of this database: a new timeline or system sends nothing until it is released.",
)

orphans = Table(
    "orphans",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("provider_ref", Text, primary_key=True),
    Column(
        "dedupe_hash", Text, comment="sha-256 of tenant, kind and dedupe key: how a caller's repeat finds its money"
    ),
    Column("effect_id", Uuid),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger),
    Column("currency", Text),
    Column("provider_created_at", _TIME),
    Column("incarnation", BigInteger, ForeignKey("incarnations.id")),
    Column("found_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("adopted_by", Uuid, comment="the effect that has taken it over"),
    Index(
        "orphans_dedupe_hash",
        "dedupe_hash",
        unique=True,
        postgresql_where=text("dedupe_hash IS NOT NULL AND adopted_by IS NULL"),
    ),
    comment="Objects at the provider that a database which went back in time has forgotten.",
)
