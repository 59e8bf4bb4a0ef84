"""Items of the reconciliation queue whose time has come: starts one run while some are to be tried."""

import dagster as dg

from loyalty_pipelines.jobs import drain_reconciliation_queue_job
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.sensors.one_run import at_most_one_run

# The shortest wait between two tries is a minute.
INTERVAL_SECONDS = 30


@dg.sensor(
    job=drain_reconciliation_queue_job,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches the reconciliation queue, and starts drain_reconciliation_queue_job when items are due for a "
    "try. Parked ones are not: they wait for 'loyalty queue'. At most one run at a time.",
)
def reconciliation_queue_sensor(context: dg.SensorEvaluationContext, ledger: LedgerDatabase):
    from loyalty_pipelines.db.queue_run import is_something_due
    from loyalty_pipelines.domain.source_mapping import NoMappingError

    try:
        with ledger.engine() as engine:
            is_pending = is_something_due(engine)
    except NoMappingError as nothing_to_do:
        return dg.SkipReason(str(nothing_to_do))
    return at_most_one_run(context.instance, drain_reconciliation_queue_job.name, is_pending=is_pending)
