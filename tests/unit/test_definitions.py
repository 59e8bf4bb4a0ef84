"""What an operator meets in the UI is described, owned and grouped; and the code location starts quickly."""

import os
import subprocess
import sys

import dagster as dg
import pytest

from loyalty_pipelines.definitions import defs

SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_asset_has_a_description_an_owner_a_group_and_a_kind(name: str) -> None:
    spec = SPECS[name]
    assert spec.description and len(spec.description) > 30
    assert spec.owners
    assert spec.kinds
    assert spec.group_name not in (None, "default")


def test_every_asset_key_is_a_group_and_a_noun() -> None:
    assert [len(spec.key.path) for spec in SPECS.values()] == [2] * len(SPECS)


def test_every_check_says_what_to_do_when_it_is_red() -> None:
    checks = [spec for made in defs.asset_checks or () for spec in made.check_specs]
    # And those of the contracts, which an operator may change.
    assert len([spec for spec in checks if spec.asset_key.path[0] != "shop"]) == 46
    for spec in checks:
        assert spec.description
        assert "Red:" in spec.description or "Yellow:" in spec.description, spec.name


def test_every_job_sensor_and_schedule_has_a_description() -> None:
    repository = defs.get_repository_def()
    named = [*repository.schedule_defs, *repository.sensor_defs, *(job for job in defs.jobs or ())]
    assert named
    for thing in named:
        assert thing.description, thing.name


def test_sensors_and_schedules_run_by_default() -> None:
    repository = defs.get_repository_def()
    assert {sensor.default_status for sensor in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    # It changes the shop's rows: a person turns it on.
    off = {one.name for one in repository.schedule_defs if one.default_status != dg.DefaultScheduleStatus.RUNNING}
    assert off == {"fix_subscriptions_schedule"}


def test_every_job_has_a_longest_runtime() -> None:
    for job in defs.jobs or ():
        assert int((job.tags or {})["dagster/max_runtime"]) > 0, job.name


def test_importing_the_code_location_imports_nothing_slow() -> None:
    program = (
        "import sys, loyalty_pipelines.definitions; "
        "print([name for name in ('pandas', 'great_expectations', 'alembic', 'psycopg', 'psycopg2', 'sqlalchemy') "
        "if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("zone", "found"),
    [
        ("Europe/Luxembourg", "Europe/Luxembourg\n"),
        ("", "UTC\n"),
        ("Mars/Olympus", "LOYALTY_TIMEZONE is 'Mars/Olympus': expected the IANA name of a time zone"),
    ],
)
def test_the_nights_are_in_the_platforms_time_zone(zone: str, found: str) -> None:
    program = (
        "from loyalty_pipelines.definitions import defs; "
        "print(defs.resolve_schedule_def('expiry_schedule').execution_timezone)"
    )
    environment = {**os.environ, "LOYALTY_TIMEZONE": zone}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert found in ended.stdout + ended.stderr


def test_definitions_load_without_any_database_variable() -> None:
    program = "import os; os.environ.clear(); import loyalty_pipelines.definitions"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
