"""`loyalty alerts`: what is wrong, who is told, and what an operator does about it."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, note, print_json, print_table, say, shown
from loyalty_pipelines.cli.programs import current_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loyalty_pipelines.domain.alert_settings import AlertSettings
    from loyalty_pipelines.domain.alerts import Announced, Problem, Silence

CHANNELS = ("slack", "webhook", "email")
LONGEST_SILENCE_HOURS = 720
MOST_PROBLEMS = 100_000


@click.group()
def alerts() -> None:
    """Look at problems, try the alert channels, silence what is known."""


@alerts.command("list")
@click.option("--all", "is_all", is_flag=True, help="Problems and silences that are over, too.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True,
              help="How many of the newest.")  # fmt: skip
@json_option
def list_problems(is_all: bool, limit: int, as_json: bool) -> None:
    """List what is wrong, since when, and who was told; and what is silenced."""
    from loyalty_pipelines.db import alerts as db
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        problems = db.find_problems(conn, is_all=is_all, limit=limit)
        silences = db.find_silences(conn, is_all=is_all, limit=limit)
    if as_json:
        print_json({"problems": problems, "silences": silences})
        return
    _print_problems(problems)
    if silences:
        print_table(
            ("silenced", "until", "by", "reason", "ended"),
            [(one.name, one.until_at, one.actor, one.reason, one.ended_at) for one in silences],
        )


def _print_problems(problems: "Sequence[Problem]") -> None:
    if not problems:
        say("No problems.")
        return
    print_table(
        ("severity", "problem", "since", "ended", "told", "by", "reminders", "detail"),
        [
            (
                one.severity.value,
                one.title,
                one.started_at,
                one.ended_at,
                one.last_notified_at,
                one.last_channel,
                one.reminders,
                one.detail,
            )
            for one in problems
        ],
        numbers=("reminders",),
    )


@alerts.command()
@click.option("--channel", type=click.Choice(CHANNELS), help="Only this one.")
@json_option
def test(channel: str | None, as_json: bool) -> None:
    """Send a test message to each configured channel, and say what it answered.

    Exit status 1: a channel did not take it, or a setting can't be used.
    """
    from loyalty_pipelines.db.alerts import now
    from loyalty_pipelines.db.alerts_run import record_health
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.alert_messages import ChannelError, message_of_test
    from loyalty_pipelines.resources.alert_channels import channels_for

    settings = _settings()
    settings.require_channel()
    channels = channels_for(settings)
    if channel is not None and channel not in channels:
        raise click.UsageError(f"The channel {channel} is not configured: {' '.join(settings.problems) or 'set it.'}")
    answers = {}
    with database(as_json=as_json) as engine:
        with reading(engine) as conn:
            require_ready(conn, is_mapping_needed=False)
            as_of = now(conn)
        for name, way in channels.items():
            if channel not in (None, name):
                continue
            try:
                said, error = way.send(message_of_test(as_of=as_of, channel=name)), None
            except ChannelError as refusal:
                said, error = "", str(refusal)
            answers[name] = {"is_taken": error is None, "said": error or said}
            record_health(engine, name, note=said, error=error)
    if as_json:
        print_json({"channels": answers, "settings_problems": settings.problems})
    else:
        for name, answer in answers.items():
            say(f"{name:<10}{'took it' if answer['is_taken'] else 'did not take it'}"
                f"{': ' if answer['said'] else ''}{answer['said']}")  # fmt: skip
        for problem in settings.problems:
            say(f"! {problem}")
    if settings.problems or not all(answer["is_taken"] for answer in answers.values()):
        click.get_current_context().exit(1)


@alerts.command()
@click.argument("name", type=TEXT)
@click.option("--hours", type=click.IntRange(1, LONGEST_SILENCE_HOURS), required=True, help="For how long.")
@click.option("--reason", type=TEXT, required=True, help="Why; it is kept.")
@click.option("--actor", type=TEXT, default=current_user, help="Who decided it; default: you.")
@json_option
def silence(name: str, hours: int, reason: str, actor: str, as_json: bool) -> None:
    """Send nothing about the check, job or asset NAME for some hours.

    It is tracked meanwhile, and told when the time is over and it is still there. What can be P0 is silenced for at
    most 24 hours.
    """
    from loyalty_pipelines.db import alerts as db
    from loyalty_pipelines.domain.alerts import LONGEST_P0_SILENCE, Severity, SilenceTooLongError
    from loyalty_pipelines.resources.alert_table import read_alert_table

    if not reason.strip():
        raise click.UsageError("--reason says nothing.")
    table, time = read_alert_table(), timedelta(hours=hours)
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        # What has no row of its own has a name as soon as it is a problem.
        known = {one.name: one.severity for one in db.find_problems(conn, is_all=False, limit=MOST_PROBLEMS)}
        if name not in known:
            row = table.require(name)
            severities = {row.red, row.yellow}
        else:
            severities = {known[name], table.row(name).red}
        if Severity.P0 in severities and time > LONGEST_P0_SILENCE:
            raise SilenceTooLongError(name)
        made = db.silence(conn, name, time=time, reason=reason, actor=actor)
    if as_json:
        print_json(made)
    else:
        say(_silenced(made))


def _silenced(made: "Silence") -> str:
    return f"{made.name} is silenced until {shown(made.until_at)}. 'loyalty alerts unsilence {made.name}' ends it."


@alerts.command()
@click.argument("name", type=TEXT)
@click.option("--actor", type=TEXT, default=current_user, help="Who decided it; default: you.")
@json_option
def unsilence(name: str, actor: str, as_json: bool) -> None:
    """End the silences over the check, job or asset NAME."""
    from loyalty_pipelines.db import alerts as db

    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        ended = db.unsilence(conn, name, actor=actor)
    if as_json:
        print_json({"name": name, "ended": ended})
    else:
        say(f"{counted(ended, 'silence')} of {name} ended." if ended else f"{name} was not silenced.")


@alerts.command()
@click.argument("name", type=TEXT)
@click.option("--reason", type=TEXT, required=True, help="Why; it is kept.")
@click.option("--actor", type=TEXT, default=current_user, help="Who decided it; default: you.")
@json_option
def close(name: str, reason: str, actor: str, as_json: bool) -> None:
    """Say that the failed run NAME is settled: its problem is over.

    It comes back with the next run that fails. Who was told of it gets the all-clear.
    """
    from loyalty_pipelines.db.alerts_run import close_problem
    from loyalty_pipelines.db.engine import reading

    if not reason.strip():
        raise click.UsageError("--reason says nothing.")
    with database(as_json=as_json) as engine:
        with reading(engine) as conn:
            require_ready(conn, is_mapping_needed=False)
        closed = close_problem(engine, name, reason=reason, actor=actor)
    if as_json:
        print_json(closed)
    else:
        say(f"{name} is over.")


@alerts.command()
@click.option("--max-minutes", type=click.IntRange(2, 10_080), default=10, show_default=True,
              help="How long ago alerts_sensor may have looked.")  # fmt: skip
@click.option("--send", is_flag=True, help="Alert when alerts_sensor does not look, and when it does again.")
@json_option
def check(max_minutes: int, send: bool, as_json: bool) -> None:
    """Ask the database alone what is wrong: for cron, beside Dagster.

    Does alerts_sensor look? Are there findings of the nightly proof, merchants whose jobs failed, items that wait in
    the queue for a day? Exit status 1: something is wrong.
    """
    from loyalty_pipelines.db.alerts_run import WATCHDOG, observe, watch
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.alert_table import AlertTable, AlertTableError
    from loyalty_pipelines.resources.alert_table import read_alert_table

    with database(as_json=as_json) as engine:
        with reading(engine) as conn:
            require_ready(conn, is_mapping_needed=False)
        found = watch(engine, longest_age=timedelta(minutes=max_minutes))
        if send:
            try:
                table = read_alert_table()
            except AlertTableError as error:
                # Somebody has to be told all the same.
                table = AlertTable()
                note(str(error))
            observe(engine, WATCHDOG, found.sight(), table)
            _send(engine)
    if as_json:
        print_json({"is_fine": not found.lines, "sensor_age": found.sensor_age, "problems": found.lines})
    else:
        for line in found.lines or ["Nothing is wrong."]:
            say(line)
    if found.lines:
        click.get_current_context().exit(1)


def _send(engine) -> "Announced":
    from loyalty_pipelines.db.alerts_run import WATCHDOG, announce
    from loyalty_pipelines.domain.alerts import AlertNotSentError
    from loyalty_pipelines.resources.alert_channels import channels_for

    settings = _settings()
    settings.require_channel()
    done = announce(engine, channels_for(settings), settings=settings, observer=WATCHDOG)
    if done.is_nobody_told:
        raise AlertNotSentError(done)
    return done


def _settings() -> "AlertSettings":
    from loyalty_pipelines.domain.alert_settings import alert_settings
    from loyalty_pipelines.processes import mail_environment

    return alert_settings({**os.environ, **mail_environment()})
