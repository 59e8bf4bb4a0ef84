"""The shop's own tables, as they appear to the pipelines: where the lineage starts."""

import dagster as dg

ORDERS = dg.AssetKey(["shop", "orders"])
REFUNDS = dg.AssetKey(["shop", "refunds"])
MERCHANTS_TABLE = dg.AssetKey(["shop", "merchants"])
CUSTOMERS = dg.AssetKey(["shop", "customers"])
PAYMENTS = dg.AssetKey(["shop", "payments"])
SUBSCRIPTIONS = dg.AssetKey(["shop", "subscriptions"])
PLANS = dg.AssetKey(["shop", "plans"])

SHOP_TABLES = [
    dg.AssetSpec(
        key,
        group_name="shop",
        description=f"{description} Written by the shop; read through the view loyalty_source.{key.path[-1]}, which "
        "the source mapping defines ('loyalty sources show').",
        kinds={"postgres", "table"},
        owners=["team:shop"],
    )
    for key, description in (
        (ORDERS, "The shop's orders with their status, amount and time of payment."),
        (REFUNDS, "What was paid back of an order."),
        (MERCHANTS_TABLE, "The platform's merchants with their currency and time zone."),
        (CUSTOMERS, "The merchants' customers."),
        (PAYMENTS, "What the payment provider says of orders and subscriptions."),
        (SUBSCRIPTIONS, "What customers pay again and again, with its current period."),
        (PLANS, "What a subscription costs, and how often."),
    )
]
