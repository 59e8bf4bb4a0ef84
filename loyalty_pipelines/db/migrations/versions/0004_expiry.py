"""Expiry: what is due, in which runs it was taken, with which terms it was computed."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the index of what is due, and the record of expiry runs."""
    # As the driver's own text: a colon in it is PostgreSQL's, not a bind parameter.
    op.get_bind().connection.cursor().execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Refuse: going back would drop what can be undone."""
    raise NotImplementedError("This revision holds what expired: restore a backup instead.")
