"""The one Definitions: lists everything, defines nothing."""

import dagster as dg

from loyalty_pipelines.assets.alerts import ALERTS_TABLE
from loyalty_pipelines.assets.awards import awarded_points, live_awards
from loyalty_pipelines.assets.expiry import expiry
from loyalty_pipelines.assets.holds import released_holds
from loyalty_pipelines.assets.integrity import balance_integrity
from loyalty_pipelines.assets.notifications import sent_notifications
from loyalty_pipelines.assets.reconciliation_queue import reconciliation_queue
from loyalty_pipelines.assets.reports import reports
from loyalty_pipelines.assets.shop import SHOP_TABLES
from loyalty_pipelines.assets.subscriptions import subscription_mismatches, subscription_report
from loyalty_pipelines.checks import CHECKS
from loyalty_pipelines.jobs import JOBS
from loyalty_pipelines.resources.alerter import Alerter
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.resources.mailer import Mailer
from loyalty_pipelines.resources.reports import Reports
from loyalty_pipelines.schedules import SCHEDULES
from loyalty_pipelines.sensors.alerts import alerts_sensor
from loyalty_pipelines.sensors.merchants import merchants_sensor
from loyalty_pipelines.sensors.paid_orders import paid_orders_sensor
from loyalty_pipelines.sensors.pending_notifications import pending_notifications_sensor
from loyalty_pipelines.sensors.reconciliation_queue import reconciliation_queue_sensor

defs = dg.Definitions(
    assets=[
        *SHOP_TABLES,
        live_awards,
        awarded_points,
        reconciliation_queue,
        released_holds,
        expiry,
        sent_notifications,
        balance_integrity,
        reports,
        subscription_mismatches,
        subscription_report,
        ALERTS_TABLE,
    ],
    asset_checks=CHECKS,
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=[
        paid_orders_sensor,
        merchants_sensor,
        reconciliation_queue_sensor,
        pending_notifications_sensor,
        alerts_sensor,
    ],
    resources={
        "ledger": LedgerDatabase(url=dg.EnvVar("LOYALTY_DATABASE_URL")),
        "mailer": Mailer(),
        "report_files": Reports(),
        "alerter": Alerter(),
    },
    # One process per run: a step of its own would import everything a second time (1.2 s) for nothing, the work is in
    # PostgreSQL.
    executor=dg.in_process_executor,
)
