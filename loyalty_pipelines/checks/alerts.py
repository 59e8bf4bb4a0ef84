"""Somebody is told."""

import dagster as dg

from loyalty_pipelines.assets.alerts import ALERTS
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import table
from loyalty_pipelines.resources.alerter import Alerter
from loyalty_pipelines.resources.database import LedgerDatabase


@dg.asset_check(
    asset=ALERTS,
    blocking=True,
    description=described(
        "Every configured alert channel took the last message that it was given. Red: alerts go to the next channel, "
        "or nowhere. 'loyalty alerts test' says what each answers; correct the setting or the server, then run it "
        "again. Where no channel is configured, nobody is told, and this is green.",
        "alerts",
        "alert_channels_work is red",
    ),
)
def alert_channels_work(ledger: LedgerDatabase, alerter: Alerter) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.alerts import channel_health
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.alert_settings import EMAIL, SLACK, VARIABLES, WEBHOOK
    from loyalty_pipelines.domain.alerts import ChannelState

    settings = alerter.settings()
    with ledger.engine() as engine, reading(engine) as conn:
        health = channel_health(conn)
    states = [
        ChannelState.of(name, health.get(name), is_configured=name in settings.channels)
        for name in (SLACK, WEBHOOK, EMAIL)
    ]
    failing = [one for one in states if one.is_failing]
    problems = [*(f"{one.channel} fails: {one.error}." for one in failing), *settings.problems]
    nothing = "" if settings.channels else f" None is configured: set {', '.join(VARIABLES.values())} (docs/alerts.md)."
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description=(" ".join(problems) or f"{len(settings.channels)} channels, none fails.") + nothing,
        metadata={
            "channels": len(settings.channels),
            "failing": len(failing),
            "settings that can't be used": len(settings.problems),
            "by channel": table(states, ("channel", "state", "failures", "failing_since", "succeeded_at", "error")),
        },
    )
