"""${message}

Rules: one purpose a migration. Never rewrite or lock a big table: add columns without a volatile default, add
constraints NOT VALID and validate them in a second migration, create indexes concurrently (in an autocommit block)
when the table may be large. Old code must run on the new schema: expand, migrate, contract.

Revision: ${up_revision}
After: ${down_revision | comma,n}
"""

from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "raise SystemExit('write the upgrade')"}


def downgrade() -> None:
    ${downgrades if downgrades else "raise SystemExit('write the downgrade')"}
