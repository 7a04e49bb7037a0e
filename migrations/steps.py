"""What several migrations do."""

from alembic import op
from sqlalchemy import text


def once(table: str, *statements: str) -> None:
    """Execute `statements`, the first of which makes `table`, unless a run that was cut after them has.

    They are committed before an index is built beside the writers, without the revision's stamp.
    """
    if op.get_context().as_sql or op.get_bind().scalar(text("select to_regclass(:table)"), {"table": table}) is None:
        for statement in statements:
            op.execute(statement)
