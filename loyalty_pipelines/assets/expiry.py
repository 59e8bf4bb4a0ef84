"""Points that go after a period without activity: warned of, planned, taken; one run each night for all merchants."""

from datetime import timedelta
from shlex import quote
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.alerts import NIGHTLY
from loyalty_pipelines.assets.awards import (
    AWARDED_POINTS,
    LIVE_AWARDS,
    OWNERS,
    RETRY_TRANSIENT,
    failed_merchants,
    instant,
    retrying_only_what_passes,
)
from loyalty_pipelines.assets.shop import MERCHANTS_TABLE
from loyalty_pipelines.domain.expiry import DEFAULT_CHUNK_SIZE, ExpiryOptions, Limits, Step
from loyalty_pipelines.partitions import MERCHANTS
from loyalty_pipelines.resources.database import LedgerDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loyalty_pipelines.domain.expiry import MerchantExpiry

EXPIRY_WARNINGS = dg.AssetKey(["loyalty", "expiry_warnings"])
EXPIRY_PLAN = dg.AssetKey(["loyalty", "expiry_plan"])
EXPIRED_POINTS = dg.AssetKey(["loyalty", "expired_points"])
# In the order in which they are done.
STEPS = {EXPIRY_WARNINGS: Step.WARN, EXPIRY_PLAN: Step.PLAN, EXPIRED_POINTS: Step.EXPIRE}

EXPIRY_POOL = "expiry"
# A re-execution within it goes on with its first run; later it is another night's. As in sql/expiry/begin_run.sql.
SAME_NIGHT = timedelta(hours=20)


class ExpiryConfig(dg.Config):
    """What to warn of and to expire, and how much of it is no surprise."""

    dry_run: bool = Field(
        default=True,
        description="Count who would be warned and what would go, and write nothing. The schedule says False.",
    )
    as_of: str | None = Field(
        default=None,
        description="Decide as if it were this instant, e.g. 2026-01-31T00:00:00+01:00; only a dry run may look ahead. "
        "Default: now.",
    )
    chunk_size: int = Field(
        default=DEFAULT_CHUNK_SIZE,
        ge=1,
        le=10_000,
        description="Accounts per transaction; they stay locked that long.",
    )
    max_share_of_accounts: float = Field(
        default=Limits.max_share_of_accounts,
        ge=0,
        le=1,
        description="A merchant with fewer than 7 nights to compare with is stopped when a larger share of its "
        "accounts with points is due.",
    )
    max_times_usual: float = Field(
        default=Limits.max_times_usual,
        ge=1,
        le=1_000,
        description="A merchant is stopped when more accounts are due than this many times the most that expired in "
        "one of its last 30 nights.",
    )
    require_warning: bool = Field(
        default=True,
        description="Take only points whose customer was told. False also takes the others, and turns the check "
        "nobody_expired_unwarned red, on purpose.",
    )
    accept_accounts: int | None = Field(
        default=None,
        ge=0,
        description="So many accounts of the one chosen merchant may expire, whatever its history: the number that its "
        "stopped plan has shown.",
    )

    def options(self, *, steps: frozenset[Step], connections: int) -> ExpiryOptions:
        """Return how to run."""
        return ExpiryOptions(
            as_of=instant("as_of", self.as_of),
            is_dry_run=self.dry_run,
            chunk_size=self.chunk_size,
            connections=connections,
            is_warning_required=self.require_warning,
            limits=Limits(
                max_share_of_accounts=self.max_share_of_accounts,
                max_times_usual=self.max_times_usual,
                accepted_accounts=self.accept_accounts,
            ),
            steps=steps,
        )


def _spec(
    key: dg.AssetKey, description: str, deps: list[dg.AssetKey], freshness: dg.FreshnessPolicy | None = None
) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        group_name="expiry",
        deps=deps,
        description=description,
        kinds={"postgres"},
        owners=OWNERS,
        partitions_def=MERCHANTS,
        skippable=True,
        freshness_policy=freshness,
    )


# One step for all three, as for awarded_points: each merchant is logged when it is done. Steps of their own would be
# skipped for all merchants when one of them is stopped, and would go over the merchants three times.
@dg.multi_asset(
    name="expiry",
    specs=[
        _spec(
            EXPIRY_WARNINGS,
            "Mails to customers whose points are about to expire, once per date, in the outbox. Where a warning comes "
            "late or has not arrived, the date moves, so that the lead is whole again.",
            [AWARDED_POINTS, LIVE_AWARDS, MERCHANTS_TABLE],
        ),
        _spec(
            EXPIRY_PLAN,
            "What is due at a merchant, compared with its own last 30 nights. A merchant that looks wrong is stopped: "
            "nothing of it expires until a person lets it through with 'loyalty expire MERCHANT --accept N'.",
            [EXPIRY_WARNINGS],
        ),
        _spec(
            EXPIRED_POINTS,
            "Points that went because their customer was warned and stayed away: entry, balance and mail of an account "
            "in one transaction. Not materialized for a merchant whose plan is stopped. Running it twice takes nothing "
            "twice; 'loyalty expiry undo --run RUN_ID' gives back what a run took.",
            [EXPIRY_PLAN],
            NIGHTLY,
        ),
    ],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY_TRANSIENT,
    pool=EXPIRY_POOL,
)
def expiry(context: dg.AssetExecutionContext, config: ExpiryConfig, ledger: LedgerDatabase):
    from loyalty_pipelines.db.expiry_run import expire_merchants

    merchants = context.partition_keys
    if config.accept_accounts is not None and len(merchants) > 1:
        raise dg.Failure(
            f"accept_accounts is {config.accept_accounts}, and {len(merchants)} merchants are chosen: expected one, "
            "because the number is that of one merchant's plan.",
            allow_retries=False,
        )
    selected = [key for key in STEPS if key in context.selected_asset_keys]
    options = config.options(steps=frozenset(STEPS[key] for key in selected), connections=ledger.connections)
    failures: dict[str, str] = {}
    left = set(merchants)
    with retrying_only_what_passes(), ledger.engine() as engine:
        for done in expire_merchants(engine, merchants, options=options, actor="expiry", run_id=_run_id(context)):
            left.discard(done.merchant_id)
            if problem := _log_merchant(context, done, selected, is_dry_run=config.dry_run):
                failures[done.merchant_id] = problem
    if left:
        context.log.info(f"{len(left)} merchants have no programme: " + ", ".join(sorted(left)[:10]))
    if failures:
        raise failed_merchants(failures)
    # A generator without an output: everything was logged above.
    yield from ()


def _run_id(context: dg.AssetExecutionContext) -> str:
    """Return under which id the ledger keeps what is done: a retry counts on with the figures of its first run."""
    run = context.run
    if run.root_run_id is None:
        return run.run_id
    records = context.instance.get_run_records(dg.RunsFilter(run_ids=[run.root_run_id, run.run_id]))
    created = {record.dagster_run.run_id: record.create_timestamp for record in records}
    first, this = created.get(run.root_run_id), created.get(run.run_id)
    is_same_night = first is not None and this is not None and this - first < SAME_NIGHT
    return run.root_run_id if is_same_night else run.run_id


def _log_merchant(
    context: dg.AssetExecutionContext, done: "MerchantExpiry", selected: list[dg.AssetKey], *, is_dry_run: bool
) -> str | None:
    """Log what was done for a merchant as events of the selected assets; return what has to fail the run."""
    for warning in done.warnings:
        context.log.warning(f"Merchant {done.merchant_id}: {warning}.")
    if done.failure:
        context.log.error(f"Merchant {done.merchant_id}: {done.failure}")
        return done.failure
    if done.accounts_locked:
        context.log.warning(
            f"Merchant {done.merchant_id}: {done.accounts_locked} accounts were locked twice; the next run takes them."
        )
    event = dg.AssetObservation if is_dry_run else dg.AssetMaterialization
    for key in selected:
        if key == EXPIRED_POINTS and done.is_stopped:
            assert done.plan is not None
            context.log.error(
                f"Merchant {done.merchant_id} is stopped, nothing of it expires: {done.plan.reason(done.merchant_id)}"
            )
            continue
        context.log_event(event(key, partition=done.merchant_id, metadata=METADATA[key](done)))
    return _refusal(done)


def _refusal(done: "MerchantExpiry") -> str | None:
    """Return the reasons why PostgreSQL refused accounts; not whose: a customer's id may be an address."""
    if not done.refused:
        return None
    reasons = sorted(set(done.refused.values()))
    return (
        f"PostgreSQL refused to change {len(done.refused)} of its accounts, all others are done ("
        + "; ".join(reasons[:3])
        + f"); 'loyalty expire {quote(done.merchant_id)}' tries again and names the customers"
    )


def _warnings_metadata(done: "MerchantExpiry") -> "Mapping[str, dg.MetadataValue]":
    return {
        "accounts warned": dg.MetadataValue.int(done.accounts_warned),
        "points": dg.MetadataValue.int(done.points_warned),
        "dates moved": dg.MetadataValue.int(done.accounts_moved),
        "accounts rescheduled": dg.MetadataValue.int(done.accounts_rescheduled),
    }


def _plan_metadata(done: "MerchantExpiry") -> "Mapping[str, dg.MetadataValue]":
    plan = done.plan
    found: dict[str, dg.MetadataValue] = {
        "accounts due": dg.MetadataValue.int(plan.accounts_due if plan else 0),
        "points due": dg.MetadataValue.int(plan.points_due if plan else 0),
        "accounts waiting": dg.MetadataValue.int(plan.accounts_waiting if plan else 0),
        "stopped": dg.MetadataValue.bool(done.is_stopped),
    }
    if plan:
        found["nights compared"] = dg.MetadataValue.int(plan.nights_compared)
        found["usual"] = dg.MetadataValue.int(plan.accounts_usual)
        found["limit"] = dg.MetadataValue.int(plan.accounts_limit)
        if plan.is_stopped:
            found["reason"] = dg.MetadataValue.text(plan.reason(done.merchant_id))
    return found


def _expired_metadata(done: "MerchantExpiry") -> "Mapping[str, dg.MetadataValue]":
    found: dict[str, dg.MetadataValue] = {
        "accounts expired": dg.MetadataValue.int(done.accounts_expired),
        "points expired": dg.MetadataValue.int(done.points_expired),
        "accounts still locked": dg.MetadataValue.int(done.accounts_locked),
        "accounts refused": dg.MetadataValue.int(len(done.refused)),
    }
    if done.forecast:
        # Below zero: customers came back since.
        found["accounts against the forecast"] = dg.MetadataValue.int(done.accounts_expired - done.forecast.accounts)
        found["points against the forecast"] = dg.MetadataValue.int(done.points_expired - done.forecast.points)
    if done.run_id:
        found["run"] = dg.MetadataValue.text(done.run_id)
    return found


METADATA = {
    EXPIRY_WARNINGS: _warnings_metadata,
    EXPIRY_PLAN: _plan_metadata,
    EXPIRED_POINTS: _expired_metadata,
}
