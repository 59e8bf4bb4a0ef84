"""Mails whose time has come: starts one run while some are to be sent."""

import dagster as dg

from loyalty_pipelines.jobs import MAIL_MAX_RUNTIME_SECONDS, send_notifications_job
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.resources.mailer import Mailer
from loyalty_pipelines.sensors.one_run import at_most_one_run

INTERVAL_SECONDS = 30


@dg.sensor(
    job=send_notifications_job,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches the outbox, and starts send_notifications_job when mails are due. Without LOYALTY_MAIL_URL "
    "they wait. At most one run at a time.",
)
def pending_notifications_sensor(context: dg.SensorEvaluationContext, ledger: LedgerDatabase, mailer: Mailer):
    from loyalty_pipelines.db.notifications_run import is_something_due
    from loyalty_pipelines.domain.mail_settings import MailNotConfiguredError
    from loyalty_pipelines.domain.source_mapping import NoMappingError

    try:
        mailer.settings()
        with ledger.engine() as engine:
            is_pending = is_something_due(engine)
    except (MailNotConfiguredError, NoMappingError) as nothing_to_do:
        return dg.SkipReason(str(nothing_to_do))
    return at_most_one_run(
        context.instance,
        send_notifications_job.name,
        is_pending=is_pending,
        max_runtime_seconds=MAIL_MAX_RUNTIME_SECONDS,
    )
