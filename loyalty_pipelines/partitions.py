"""How the work is divided: one partition per merchant."""

import dagster as dg

# Kept in step with loyalty_source.merchants by sensors/merchants.py.
MERCHANT = "merchant"
MERCHANTS = dg.DynamicPartitionsDefinition(name=MERCHANT)

# What Dagster refuses in a partition key. A merchant with such an id is awarded live like any other, but can't be
# chosen as a partition.
FORBIDDEN_IN_KEYS = ("...", "\a", "\b", "\f", "\n", "\r", "\t", "\v", "\0")


def is_partition_key(merchant_id: str) -> bool:
    """Return whether Dagster accepts the merchant's id as a partition key."""
    return bool(merchant_id) and not any(part in merchant_id for part in FORBIDDEN_IN_KEYS)
