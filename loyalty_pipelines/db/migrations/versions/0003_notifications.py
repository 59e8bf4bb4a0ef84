"""Mails: the outbox's delivery, overrides of the built-in templates, enrolment, welcome bonus, rewards."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add what mails need, and the functions that cause them."""
    # As the driver's own text: a colon in it is PostgreSQL's, not a bind parameter.
    op.get_bind().connection.cursor().execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Refuse: going back would drop which mails were sent."""
    raise NotImplementedError("This revision holds what was sent: restore a backup instead.")
