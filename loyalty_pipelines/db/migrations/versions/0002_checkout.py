"""Checkout functions, redemptions, repairs: what customers spend, what is given back, what is put right."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the functions that a shop calls, and what the queue and merged accounts need."""
    # As the driver's own text: a colon in it is PostgreSQL's, not a bind parameter.
    op.get_bind().connection.cursor().execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Refuse: going back would drop what customers have redeemed."""
    raise NotImplementedError("This revision holds redemptions: restore a backup instead.")
