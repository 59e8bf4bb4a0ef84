"""Integrity: findings, seals, how far the proof has come, repairs."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the record of the nightly proof."""
    # As the driver's own text: a colon in it is PostgreSQL's, not a bind parameter.
    op.get_bind().connection.cursor().execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Refuse: going back would drop what was found and repaired."""
    raise NotImplementedError("This revision holds what was found and repaired: restore a backup instead.")
