"""What is measured, for Prometheus: names, labels, and what each number means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A gauge: nothing here only grows, because what was done is counted in windows or as it is now.

    No label is called job or instance: Prometheus and the Pushgateway overwrite those with their own.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()


# The values of a metric by those of its labels.
Samples = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """The samples of every metric, of one instant, by the metric's name."""

    samples: Mapping[str, Samples]


def _of_merchants(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=name, text=text, labels=("merchant", *labels))


METRICS: Sequence[Metric] = (
    # Awards
    _of_merchants(
        "loyalty_award_orders",
        "Orders that award batches of the last hour looked at, by outcome: changed, unchanged, skipped (nothing to "
        "award), queued (could not be decided, counted once), missing (gone from the shop).",
        "outcome",
    ),
    _of_merchants(
        "loyalty_award_batch_seconds",
        "How long award batches of the last hour took: median, p95, longest.",
        "statistic",
    ),
    _of_merchants(
        "loyalty_award_wait_seconds",
        "How long the oldest order of each award batch of the last hour had waited when it was awarded: median, p95, "
        "longest.",
        "statistic",
    ),
    _of_merchants(
        "loyalty_point_updates",
        "Orders and items of the reconciliation queue that were tried in the last hour, each counted once.",
    ),
    _of_merchants("loyalty_point_updates_retried", "Those of them that took more than one try."),
    Metric(
        name="loyalty_duplicate_awards",
        text="Orders that are awarded twice: open findings of class order_awarded_twice.",
    ),
    _of_merchants("loyalty_inbox_orders", "Orders that wait to be looked at."),
    _of_merchants("loyalty_inbox_oldest_seconds", "How long the oldest order waits to be looked at."),
    # Reconciliation queue
    _of_merchants(
        "loyalty_queue_items",
        "Open items of the reconciliation queue by state: waiting (not tried yet), retrying, parked (needs a person). "
        "The merchant is empty where nobody knows it.",
        "state",
    ),
    _of_merchants("loyalty_queue_oldest_seconds", "How long the oldest open item of the reconciliation queue waits."),
    _of_merchants("loyalty_queue_points_at_stake", "Points that open items would earn and redeem."),
    _of_merchants("loyalty_queue_tries", "Tries that open items of the reconciliation queue have had."),
    # Findings
    _of_merchants("loyalty_findings", "Open findings of the proofs.", "class", "severity"),
    _of_merchants(
        "loyalty_findings_points",
        "Points that customers have too_many or too_few by open findings.",
        "class",
        "direction",
    ),
    _of_merchants("loyalty_findings_amount_at_risk", "Money at risk by open findings.", "class", "currency"),
    # Mails
    _of_merchants(
        "loyalty_mails_undelivered",
        "Mails to customers that have not left, by state: waiting (not tried yet), retrying, failed (given up).",
        "state",
    ),
    _of_merchants(
        "loyalty_mails_oldest_seconds", "How long the oldest mail waits that is still to be sent, or was given up."
    ),
    _of_merchants(
        "loyalty_mails_settled",
        "What became of mails in the last hour: sent, failed, parked (nobody to reach) or void (not true any more).",
        "result",
    ),
    _of_merchants("loyalty_mails_retried", "Mails settled in the last hour that took more than one try."),
    # Liability
    _of_merchants("loyalty_accounts", "Accounts."),
    _of_merchants("loyalty_first_account_timestamp_seconds", "When the merchant's first account was made."),
    _of_merchants("loyalty_liability_points", "Points that are owed: the sum of all balances."),
    _of_merchants(
        "loyalty_liability_amount", "What the owed points are worth, at the value of a point now.", "currency"
    ),
    # Who was served last
    _of_merchants(
        "loyalty_job_last_success_timestamp_seconds",
        "When a job last succeeded for the merchant, by the asset it makes (live_awards: the newest award batch).",
        "asset",
    ),
    _of_merchants("loyalty_job_last_failure_timestamp_seconds", "When a job last failed for the merchant.", "asset"),
    _of_merchants(
        "loyalty_program_set_timestamp_seconds",
        "When the programme of a merchant of the shop was first set, of those whose programme is active now; expires: "
        "whether its points do.",
        "expires",
    ),
    # The installation
    Metric(name="loyalty_schema_info", text="The revision of the schema, as a label.", labels=("version",)),
    Metric(name="loyalty_mapping_in_force", text="Whether a source mapping is in force (1), or none or withdrawn (0)."),
    Metric(name="loyalty_mapping_applied_timestamp_seconds", text="When the mapping was applied or withdrawn."),
    Metric(
        name="loyalty_shop_readable",
        text="Whether the shop's merchants could be read (1); 0: liability amounts and programmes are left out.",
    ),
    Metric(
        name="loyalty_oldest_snapshot_transactions",
        text="How many transactions ago the oldest snapshot was taken that keeps dead rows of the database.",
    ),
    Metric(
        name="loyalty_oldest_snapshot_seconds",
        text="How long the oldest such transaction is open; left out where the database user may not see it "
        "(pg_read_all_stats).",
    ),
    Metric(name="loyalty_metrics_collected_timestamp_seconds", text="When these metrics were collected."),
    Metric(name="loyalty_metrics_collection_seconds", text="How long PostgreSQL took for them."),
)
