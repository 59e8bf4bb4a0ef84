"""The product's definitions, but for how often the alerts' sensor looks: nobody waits minutes for a test."""

import dagster as dg

from loyalty_pipelines import definitions
from loyalty_pipelines.sensors.alerts import look_and_tell

often = dg.sensor(name="alerts_sensor", minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)(
    look_and_tell
)

defs = dg.Definitions(
    assets=definitions.defs.assets,
    asset_checks=definitions.defs.asset_checks,
    jobs=definitions.defs.jobs,
    schedules=definitions.defs.schedules,
    sensors=[often, *(one for one in definitions.defs.sensors or () if one.name != often.name)],
    resources=definitions.defs.resources,
    executor=definitions.defs.executor,
)
