"""What 0002 promised without looking is now checked over all rows, and indexed without stopping writers.

Revision: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("effects_concerns_fkey", "effects_ready", "effects_has_money"):
        op.execute(f"alter table effects validate constraint {name}")
    op.execute("alter table journal validate constraint journal_fact")
    with op.get_context().autocommit_block():
        # One that was interrupted leaves an invalid index behind, which "if not exists" would take for a good one.
        op.execute("drop index concurrently if exists effects_concerns")
        op.execute("create index concurrently effects_concerns on effects (concerns) where concerns is not null")


def downgrade() -> None:
    op.execute("drop index effects_concerns")
