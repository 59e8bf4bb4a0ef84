"""Every override of a mail template is a mail, and is somebody's."""

import dagster as dg

from loyalty_pipelines.assets.notifications import SENT_NOTIFICATIONS
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.resources.database import LedgerDatabase

COLUMNS = ("merchant_id", "store_id", "template", "locale", "reason")


@dg.asset_check(
    asset=SENT_NOTIFICATIONS,
    description=described(
        "Every override of a mail template renders. Yellow: the overrides in the table were written past 'loyalty "
        "templates set', or a release has changed the variables; their customers get what comes next in the chain. "
        "Set them again, or remove them with 'loyalty templates remove'. Overrides that nobody gets are listed as "
        "well; they turn nothing yellow.",
        "notifications",
        "every_template_override_renders is yellow",
    ),
)
def every_template_override_renders(ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.mail_templates import override_problems

    with ledger.engine() as engine, reading(engine) as conn:
        count, broken, unused = override_problems(conn)
    return dg.AssetCheckResult(
        passed=not broken,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(broken)} of {count} overrides don't render; {len(unused)} are nobody's.",
        metadata={
            "overrides": count,
            "broken": len(broken),
            "unused": len(unused),
            "do not render": table(broken[:SHOWN], COLUMNS),
            "nobody gets": table(unused[:SHOWN], COLUMNS),
        },
    )
