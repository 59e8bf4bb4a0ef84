"""What can be started: by a sensor, by a schedule, or by a person in the launchpad."""

import dagster as dg

from loyalty_pipelines.assets.adjustments import adjust_points
from loyalty_pipelines.assets.alerts import ALERTS
from loyalty_pipelines.assets.awards import AWARDED_POINTS, LIVE_AWARDS
from loyalty_pipelines.assets.expiry import EXPIRED_POINTS, EXPIRY_PLAN, EXPIRY_WARNINGS
from loyalty_pipelines.assets.history import prune_history
from loyalty_pipelines.assets.holds import RELEASED_HOLDS
from loyalty_pipelines.assets.integrity import BALANCE_INTEGRITY
from loyalty_pipelines.assets.metrics import PUSH_AT_END, push_metrics
from loyalty_pipelines.assets.notifications import SENT_NOTIFICATIONS
from loyalty_pipelines.assets.reconciliation_queue import RECONCILIATION_QUEUE
from loyalty_pipelines.assets.reports import POINTS_LIABILITY, RECENT_ACTIVITY, REDEMPTION_STATS
from loyalty_pipelines.assets.subscriptions import (
    SUBSCRIPTION_MISMATCHES,
    SUBSCRIPTION_REPORT,
    fix_subscriptions,
)
from loyalty_pipelines.checks.source_contracts import source_contracts

# A run that is older than this is dead, whatever its status says: run monitoring ends it, and the sensors stop
# waiting for it.
LIVE_MAX_RUNTIME_SECONDS = 15 * 60
SWEEP_MAX_RUNTIME_SECONDS = 6 * 60 * 60
# A run of up to ten minutes may have begun its longest mail at its end, which takes eight more.
MAIL_MAX_RUNTIME_SECONDS = 20 * 60

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

award_points_job = dg.define_asset_job(
    "award_points_job",
    selection=dg.AssetSelection.assets(LIVE_AWARDS).without_checks(),
    description="Awards the orders that wait in the inbox, of all merchants. Started by paid_orders_sensor.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)

sweep_points_job = dg.define_asset_job(
    "sweep_points_job",
    selection=dg.AssetSelection.assets(AWARDED_POINTS).without_checks(),
    description="Compares every order of the chosen merchants with the ledger and awards what differs.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)

drain_reconciliation_queue_job = dg.define_asset_job(
    "drain_reconciliation_queue_job",
    selection=dg.AssetSelection.assets(RECONCILIATION_QUEUE).without_checks(),
    description="Tries what is due in the reconciliation queue, of all merchants. Started by "
    "reconciliation_queue_sensor.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)

release_holds_job = dg.define_asset_job(
    "release_holds_job",
    selection=dg.AssetSelection.assets(RELEASED_HOLDS).without_checks(),
    description="Gives back the points that a checkout reserved and nobody captured in time. Started by "
    "release_holds_schedule.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)

send_notifications_job = dg.define_asset_job(
    "send_notifications_job",
    selection=dg.AssetSelection.assets(SENT_NOTIFICATIONS).without_checks(),
    description="Sends the mails that are due, of all merchants. Started by pending_notifications_sensor.",
    tags={"dagster/max_runtime": str(MAIL_MAX_RUNTIME_SECONDS)},
)

expire_points_job = dg.define_asset_job(
    "expire_points_job",
    selection=dg.AssetSelection.assets(EXPIRY_WARNINGS, EXPIRY_PLAN, EXPIRED_POINTS).without_checks(),
    description="Warns customers of the chosen merchants whose points are about to expire, and takes what is due. A "
    "dry run unless told otherwise; expiry_schedule starts it every night for all merchants.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
    hooks=PUSH_AT_END,
)

award_checks_job = dg.define_asset_job(
    "award_checks_job",
    selection=dg.AssetSelection.checks_for_assets(LIVE_AWARDS, AWARDED_POINTS, RECONCILIATION_QUEUE),
    description="Checks that orders have their points, once, and in time, and that little waits in the queue.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)

expiry_checks_job = dg.define_asset_job(
    "expiry_checks_job",
    selection=dg.AssetSelection.checks_for_assets(EXPIRY_WARNINGS, EXPIRY_PLAN, EXPIRED_POINTS),
    description="Checks that expiry succeeded for every merchant lately, that none is stopped, and that nobody expired "
    "unwarned.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)

notification_checks_job = dg.define_asset_job(
    "notification_checks_job",
    selection=dg.AssetSelection.checks_for_assets(SENT_NOTIFICATIONS),
    description="Checks that mails arrive, and in time, and that every override of a mail template renders.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)

reports_job = dg.define_asset_job(
    "reports_job",
    selection=dg.AssetSelection.assets(POINTS_LIABILITY, REDEMPTION_STATS, RECENT_ACTIVITY).without_checks(),
    description="Writes the reports of the chosen merchants as HTML and CSV. Started by reports_schedule every night "
    "for all of them.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)

report_checks_job = dg.define_asset_job(
    "report_checks_job",
    selection=dg.AssetSelection.checks_for_assets(POINTS_LIABILITY, REDEMPTION_STATS, RECENT_ACTIVITY),
    description="Checks that the liability of every merchant is the sum of its balances.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)

integrity_job = dg.define_asset_job(
    "integrity_job",
    selection=dg.AssetSelection.assets(BALANCE_INTEGRITY).without_checks(),
    description="Proves that balances, entries, orders and dates of the chosen merchants are right; all of it unless "
    "told otherwise. Changes nothing.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
    hooks=PUSH_AT_END,
)

integrity_checks_job = dg.define_asset_job(
    "integrity_checks_job",
    selection=dg.AssetSelection.checks_for_assets(BALANCE_INTEGRITY),
    description="Says what the proofs have found that is not put right yet, and whether every merchant was proved.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)

subscriptions_job = dg.define_asset_job(
    "subscriptions_job",
    selection=dg.AssetSelection.assets(SUBSCRIPTION_MISMATCHES).without_checks(),
    description="Compares payments, orders, subscriptions and points of the chosen merchants; all of it unless told "
    "otherwise. Changes nothing in the shop.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)

subscription_checks_job = dg.define_asset_job(
    "subscription_checks_job",
    selection=dg.AssetSelection.checks_for_assets(SUBSCRIPTION_MISMATCHES),
    description="Says which mismatches are open, class by class, and whether every merchant was compared.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)

subscription_report_job = dg.define_asset_job(
    "subscription_report_job",
    selection=dg.AssetSelection.assets(SUBSCRIPTION_REPORT).without_checks(),
    description="Writes the report on money at risk as HTML, JSON and CSV, and sends its summary once a day. Started "
    "by subscription_report_schedule.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)

alert_checks_job = dg.define_asset_job(
    "alert_checks_job",
    selection=dg.AssetSelection.checks_for_assets(ALERTS),
    description="Checks that the alert channels work.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)

source_contracts_job = dg.define_asset_job(
    "source_contracts_job",
    selection=dg.AssetSelection.checks(source_contracts),
    description="Checks what is expected of the shop's data: keys, statuses, amounts, times, references, volume.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)


@dg.job(
    description="Adds points to one customer's balance or takes them, with a reason, once; a dry run unless told "
    "otherwise. Started by a person in the launchpad.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)
def adjust_points_job() -> None:
    adjust_points()


@dg.job(
    description="Applies the fixes of mismatches that are automatic or approved, up to the limits of each merchant; a "
    "dry run unless told otherwise. fix_subscriptions_schedule starts it, once somebody has turned it on.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)
def fix_subscriptions_job() -> None:
    fix_subscriptions()


@dg.job(
    description="Removes old runs with their events, so that Dagster's database does not grow for ever.",
    tags={"dagster/max_runtime": str(SWEEP_MAX_RUNTIME_SECONDS)},
)
def prune_history_job() -> None:
    prune_history()


@dg.job(
    description="Pushes metrics to the Pushgateway that LOYALTY_METRICS_PUSH_URL names. Started by "
    "push_metrics_schedule.",
    tags={"dagster/max_runtime": str(LIVE_MAX_RUNTIME_SECONDS)},
)
def push_metrics_job() -> None:
    push_metrics()


JOBS = [
    award_points_job,
    sweep_points_job,
    drain_reconciliation_queue_job,
    release_holds_job,
    send_notifications_job,
    expire_points_job,
    award_checks_job,
    expiry_checks_job,
    notification_checks_job,
    integrity_job,
    integrity_checks_job,
    adjust_points_job,
    prune_history_job,
    reports_job,
    report_checks_job,
    alert_checks_job,
    source_contracts_job,
    push_metrics_job,
    subscriptions_job,
    subscription_checks_job,
    fix_subscriptions_job,
    subscription_report_job,
]
