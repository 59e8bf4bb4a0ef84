"""The ledger, the inbox, the queue, the programmes, the roles."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of design section 5, their rules and the group roles."""
    # As the driver's own text: a colon in it is PostgreSQL's, not a bind parameter.
    op.get_bind().connection.cursor().execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Refuse: going back would drop the ledger."""
    raise NotImplementedError("The first revision holds the ledger itself: restore a backup instead.")
