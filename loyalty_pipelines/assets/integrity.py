"""The proof of the ledger: every balance equals its entries, every order its points, every date its rule."""

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.alerts import NIGHTLY
from loyalty_pipelines.assets.awards import (
    AWARDED_POINTS,
    LIVE_AWARDS,
    OWNERS,
    RETRY_TRANSIENT,
    failed_merchants,
    retrying_only_what_passes,
)
from loyalty_pipelines.assets.expiry import EXPIRED_POINTS
from loyalty_pipelines.domain.integrity import JOB
from loyalty_pipelines.partitions import MERCHANTS
from loyalty_pipelines.resources.database import LedgerDatabase

BALANCE_INTEGRITY = dg.AssetKey(["loyalty", JOB])
INTEGRITY_POOL = "integrity"


class IntegrityConfig(dg.Config):
    """How much to compare."""

    full: bool = Field(
        default=True,
        description="Compare everything. False: what was written since the last proof, and all where there was none.",
    )
    everybody: bool = Field(
        default=False,
        description="All merchants that have accounts, whatever partitions are chosen: also those that the shop no "
        "longer lists, or whose id can't be a partition. The schedules say True; it is faster, too.",
    )


# One step for all merchants, as for awarded_points: one pass over the ledger serves them all.
@dg.multi_asset(
    name=JOB,
    specs=[
        dg.AssetSpec(
            BALANCE_INTEGRITY,
            group_name="integrity",
            deps=[LIVE_AWARDS, AWARDED_POINTS, EXPIRED_POINTS],
            description="Every balance compared with its ledger entries, the chain of entries, stamps, holds, orders, "
            "redemptions, expiry dates and mails: what is wrong becomes a finding, with its rows, since when, and what "
            "it costs ('loyalty integrity findings'). Every hour what is new, every night everything. Changes nothing.",
            kinds={"postgres"},
            owners=OWNERS,
            partitions_def=MERCHANTS,
            skippable=True,
            freshness_policy=NIGHTLY,
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY_TRANSIENT,
    pool=INTEGRITY_POOL,
)
def balance_integrity(context: dg.AssetExecutionContext, config: IntegrityConfig, ledger: LedgerDatabase):
    from loyalty_pipelines.db.integrity_run import prove

    chosen = set(context.partition_keys)
    failures = {}
    with retrying_only_what_passes(), ledger.engine() as engine:
        merchants = None if config.everybody else sorted(chosen)
        for one in prove(engine, merchants, is_full=config.full, run_id=context.run.run_id):
            if one.failure:
                failures[one.merchant_id] = one.failure
                context.log.error(f"Merchant {one.merchant_id} could not be proved: {one.failure}")
                continue
            if one.findings:
                context.log.warning(f"Merchant {one.merchant_id}: {one.open_findings} open findings.")
            # An hour in which a merchant did nothing is no event: there would be thousands a day.
            if one.merchant_id in chosen and (config.full or one.entries or one.findings):
                context.log_event(
                    dg.AssetMaterialization(BALANCE_INTEGRITY, partition=one.merchant_id, metadata=one.metadata())
                )
    if failures:
        raise failed_merchants(failures)
    yield from ()
