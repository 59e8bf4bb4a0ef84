"""Findings: the currencies that a merchant has ever had some in."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply the statements of the file beside this one."""
    # As the driver's own text: a colon in it is PostgreSQL's, not a bind parameter.
    op.get_bind().connection.cursor().execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Refuse: revisions only go forward."""
    raise NotImplementedError("Revisions only go forward: restore a backup instead.")
