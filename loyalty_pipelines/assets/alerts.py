"""Alerts, as they appear in the lineage: what alerts_sensor keeps in the database."""

from datetime import timedelta

import dagster as dg

from loyalty_pipelines.assets.awards import OWNERS

ALERTS = dg.AssetKey(["loyalty", "alerts"])

# Written by a sensor and not by a run: nothing materializes it.
ALERTS_TABLE = dg.AssetSpec(
    ALERTS,
    group_name="alerts",
    description="Problems, what was sent about them and which channels work, in loyalty.alert_problems. alerts_sensor "
    "writes it; 'loyalty alerts list' shows it.",
    kinds={"postgres", "table"},
    owners=OWNERS,
)

# For what a night makes: an hour for its run, and one for the night in which the clocks go back. alerts_sensor follows
# every asset that has such a policy.
NIGHTLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26))
