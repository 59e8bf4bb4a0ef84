"""Newly paid orders: starts one run while something waits in the inbox."""

import dagster as dg

from loyalty_pipelines.jobs import award_points_job
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.sensors.one_run import at_most_one_run

INTERVAL_SECONDS = 5


@dg.sensor(
    job=award_points_job,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches for paid and changed orders, and starts award_points_job when some wait in the inbox. "
    "In poll mode it looks for changes itself. At most one run at a time.",
)
def paid_orders_sensor(context: dg.SensorEvaluationContext, ledger: LedgerDatabase):
    from loyalty_pipelines.db.capture_run import look_for_orders
    from loyalty_pipelines.domain.source_mapping import NoMappingError

    try:
        with ledger.engine() as engine:
            is_pending = look_for_orders(engine)
    except NoMappingError as nothing_to_do:
        return dg.SkipReason(str(nothing_to_do))
    return at_most_one_run(context.instance, award_points_job.name, is_pending=is_pending)
