"""New and removed merchants: keeps the partitions in step with the shop."""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from loyalty_pipelines.partitions import MERCHANT, MERCHANTS, is_partition_key
from loyalty_pipelines.resources.database import LedgerDatabase


@dataclass(frozen=True, kw_only=True)
class PartitionChanges:
    """Which partitions to add and to remove, and the merchants that can't have one."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    refused: tuple[str, ...]


def compare(*, merchants: Iterable[str], partitions: Iterable[str]) -> PartitionChanges:
    """Compare the shop's merchants with the partitions, each sorted by id."""
    wanted, existing = set(merchants), set(partitions)
    return PartitionChanges(
        added=tuple(sorted(key for key in wanted - existing if is_partition_key(key))),
        removed=tuple(sorted(existing - wanted)),
        refused=tuple(sorted(key for key in wanted if not is_partition_key(key))),
    )


def follow_merchants(context: dg.SensorEvaluationContext, ledger: LedgerDatabase):
    """One tick: compare the shop's merchants with the partitions."""
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.merchants import merchant_ids
    from loyalty_pipelines.domain.source_mapping import NoMappingError

    try:
        with ledger.engine() as engine, reading(engine) as conn:
            merchants = merchant_ids(conn)
    except NoMappingError as nothing_to_do:
        return dg.SkipReason(str(nothing_to_do))
    changes = compare(merchants=merchants, partitions=context.instance.get_dynamic_partitions(MERCHANT))
    if changes.refused:
        context.log.warning(
            f"No partition for merchants {', '.join(map(repr, changes.refused))}: Dagster refuses such ids as "
            "partition keys. Their orders are awarded live, but they can't be swept or backfilled."
        )
    if not changes.added and not changes.removed:
        return dg.SkipReason("The partitions are the shop's merchants.")
    requests = []
    if changes.added:
        requests.append(MERCHANTS.build_add_request(list(changes.added)))
    if changes.removed:
        requests.append(MERCHANTS.build_delete_request(list(changes.removed)))
    return dg.SensorResult(dynamic_partitions_requests=requests)


merchants_sensor = dg.sensor(
    name="merchants_sensor",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for each merchant of the shop, and removes those of merchants that are gone. Their "
    "accounts and ledger entries stay.",
)(follow_merchants)
