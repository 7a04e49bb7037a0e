"""How many effects an operation takes in one commit is said when it is started.

Revision: 0012
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# A default that is a constant rewrites no row, and operations are few enough to be looked at for the check.
BATCH = """
alter table operations add column batch bigint not null default 100
    constraint operations_batch check (batch between 1 and 1000);
comment on column operations.batch is 'effects of one commit';
"""


def upgrade() -> None:
    op.execute(BATCH)


def downgrade() -> None:
    op.execute("alter table operations drop column batch")  # with its check
