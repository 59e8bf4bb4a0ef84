"""The product's definitions, but for how often two sensors look, and one more that starts what a test asks for.

Nobody waits minutes for a test, and a command line of Dagster's takes seconds to start.
"""

import json
import os
from pathlib import Path

import dagster as dg

from loyalty_pipelines import definitions
from loyalty_pipelines.sensors.alerts import look_and_tell
from loyalty_pipelines.sensors.merchants import follow_merchants

often = [
    dg.sensor(name=name, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)(tick)
    for name, tick in (("alerts_sensor", look_and_tell), ("merchants_sensor", follow_merchants))
]

WANTED = "wanted-runs.json"


@dg.sensor(
    jobs=list(definitions.defs.jobs or ()),
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def starts_what_is_wanted():
    """Start the runs in a file: the name of the job and its tags, each."""
    file = Path(os.environ["LOYALTY_HOME"]) / WANTED
    if not file.exists():
        return dg.SkipReason("Nothing is wanted.")
    wanted = json.loads(file.read_text())
    file.unlink()
    return [dg.RunRequest(job_name=name, tags=tags) for name, tags in wanted]


defs = dg.Definitions(
    assets=definitions.defs.assets,
    asset_checks=definitions.defs.asset_checks,
    jobs=definitions.defs.jobs,
    schedules=definitions.defs.schedules,
    sensors=[
        *often,
        starts_what_is_wanted,
        *(one for one in definitions.defs.sensors or () if one.name not in {two.name for two in often}),
    ],
    resources=definitions.defs.resources,
    executor=definitions.defs.executor,
)
