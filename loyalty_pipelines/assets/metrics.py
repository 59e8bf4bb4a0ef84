"""Metrics, pushed to a Pushgateway where one is named: every few minutes, and at the end of nightly runs."""

import os

import dagster as dg

from loyalty_pipelines.assets.awards import RETRY_TRANSIENT, retrying_only_what_passes
from loyalty_pipelines.domain.errors import ConfigurationError, LoyaltyError
from loyalty_pipelines.domain.metrics_push import PushFailedError, is_push_wanted, push_settings
from loyalty_pipelines.resources.database import LedgerDatabase


def _push(ledger: LedgerDatabase) -> str:
    """Push what is measured now; return where to."""
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.metrics import read_metrics
    from loyalty_pipelines.resources.prometheus import push

    settings = push_settings(os.environ)
    with ledger.engine() as engine, reading(engine, is_one_snapshot=True) as conn:
        measured = read_metrics(conn)
    # Now, with no transaction open: a gateway may take its time.
    push(measured, settings)
    return settings.url


@dg.op(
    description="Pushes what 'loyalty metrics' prints to the Pushgateway that LOYALTY_METRICS_PUSH_URL names.",
    retry_policy=RETRY_TRANSIENT,
)
def push_metrics(context: dg.OpExecutionContext, ledger: LedgerDatabase) -> None:
    with retrying_only_what_passes():
        try:
            place = _push(ledger)
        except (PushFailedError, ConfigurationError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(f"Pushed to {place}.")


def _push_at_end(context: dg.HookContext) -> None:
    """Push, if somebody wants it; what the run has done is done, so a gateway that fails is only told."""
    from sqlalchemy.exc import DBAPIError

    from loyalty_pipelines.db.drain import short_text

    if not is_push_wanted(os.environ):
        return
    try:
        place = _push(context.resources.ledger)
    except (LoyaltyError, DBAPIError) as error:
        context.log.warning(f"The metrics after this step were not pushed: {short_text(error)}")
    else:
        context.log.info(f"Pushed metrics to {place}.")


@dg.success_hook(required_resource_keys={"ledger"})
def push_after_success(context: dg.HookContext) -> None:
    _push_at_end(context)


@dg.failure_hook(required_resource_keys={"ledger"})
def push_after_failure(context: dg.HookContext) -> None:
    _push_at_end(context)


# For jobs that run once a night. The others' results are pushed within minutes by push_metrics_schedule.
PUSH_AT_END = frozenset({push_after_success, push_after_failure})
