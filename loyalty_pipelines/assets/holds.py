"""Points that a checkout reserved and nobody captured: given back after their time."""

import dagster as dg

from loyalty_pipelines.assets.awards import OWNERS, RETRY_TRANSIENT, failed_merchants, retrying_only_what_passes
from loyalty_pipelines.resources.database import LedgerDatabase

RELEASED_HOLDS = dg.AssetKey(["loyalty", "released_holds"])
HOLDS_POOL = "holds"


@dg.asset(
    key=RELEASED_HOLDS,
    group_name="holds",
    description="Points that a checkout reserved and neither captured nor released in time: spendable again. "
    "release_holds_schedule starts it when there are some. A capture that comes later takes what is still there. "
    "Running it twice gives nothing back twice.",
    kinds={"postgres"},
    owners=OWNERS,
    retry_policy=RETRY_TRANSIENT,
    pool=HOLDS_POOL,
)
def released_holds(context: dg.AssetExecutionContext, ledger: LedgerDatabase) -> None:
    from loyalty_pipelines.db.holds_run import release_stale_holds

    with retrying_only_what_passes(), ledger.engine() as engine:
        report = release_stale_holds(engine, run_id=context.run.run_id)
    if report.skipped:
        context.log.warning(
            f"{len(report.skipped)} holds stay for now, because their accounts were locked twice: those of orders "
            + ", ".join(f"{one.order_id} of {one.merchant_id}" for one in report.skipped[:10])
        )
    metadata: dict[str, dg.MetadataValue] = {
        "holds": dg.MetadataValue.int(report.holds),
        "points": dg.MetadataValue.int(report.points),
        "holds still locked": dg.MetadataValue.int(len(report.skipped)),
        "merchants": dg.MetadataValue.int(len(report.merchants)),
    }
    context.add_output_metadata(metadata)
    if report.failures:
        context.log_event(dg.AssetMaterialization(RELEASED_HOLDS, metadata=metadata))
        raise failed_merchants(report.failures)
