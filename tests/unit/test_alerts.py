"""The table of alerts, the settings, the words of a message; and that the table and the runbooks have all there is."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain import subscriptions
from loyalty_pipelines.domain.alert_messages import Links, message_about
from loyalty_pipelines.domain.alert_settings import REMIND_AFTER, alert_settings
from loyalty_pipelines.domain.alert_table import AlertTableError, parse_alert_table
from loyalty_pipelines.domain.alerts import (
    LONGEST_QUIET,
    OLD_CHECKS,
    SILENT_SENSOR,
    TABLE_PROBLEM,
    Claimed,
    Event,
    Graded,
    Problem,
    Severity,
    Source,
    State,
    compare,
    due_event,
    quiet_time,
)
from loyalty_pipelines.processes import dagster_environment
from loyalty_pipelines.resources.alert_table import read_alert_table
from loyalty_pipelines.sensors.alert_runs import BY_HAND_GROUP
from loyalty_pipelines.sensors.alerts import check_keys, job_names, windows
from tests.alerting import TABLE, symptom

ROOT = Path(__file__).parent.parent.parent
REPOSITORY = defs.get_repository_def()
NOW = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)
CHECKS = {spec.name: spec for made in defs.asset_checks or () for spec in made.check_specs}


def anchors(document: str) -> set[str]:
    """Return the anchors of a document's headings."""
    tokens = MarkdownIt("commonmark").parse((ROOT / document).read_text())
    headings = [two.content for one, two in pairwise(tokens) if one.type == "heading_open"]
    return {described("", "", heading).partition("#")[2] for heading in headings}


# --- what there is, and what is listed ---


# A class of mismatches is known to people by its code: in findings, commands and the runbook.
SECTIONS = {one.sentence: one.code for one in subscriptions.CLASSES} | {"every_class_was_compared": "check_failed"}


def followed() -> dict[str, str]:
    """Return the names of all that is followed, with their source."""
    names = {key.name: "check" for key in check_keys(REPOSITORY)} | {
        TABLE_PROBLEM: "check",
        OLD_CHECKS: "check",
        SILENT_SENSOR: "watch",
    }
    names |= dict.fromkeys(job_names(REPOSITORY), "job")
    return names | {key.to_user_string(): "freshness" for key in windows(REPOSITORY)}


def group_row(name: str) -> str:
    """Return the name of the row for all checks of the asset's group; '' of what is no check."""
    return f"{CHECKS[name].asset_key.path[0]}/*" if name in CHECKS else ""


def test_every_check_and_job_of_the_definitions_is_followed() -> None:
    assert {key.name for key in check_keys(REPOSITORY)} == set(CHECKS)
    assert set(job_names(REPOSITORY)) == {job.name for job in defs.jobs or ()}
    assert len(set(CHECKS)) == len([spec for made in defs.asset_checks or () for spec in made.check_specs])


def test_all_that_is_followed_has_a_row_in_the_table_and_nothing_else_has() -> None:
    rows = {row.name: row.source for row in read_alert_table({}).rows.values()}
    of_groups = {name: source for name, source in rows.items() if name.endswith("/*")}
    missing = [
        f"| {source} | {name} | P1 | {'P2' if source == 'check' else '-'} | [runbook](runbooks/RUNBOOK.md#ANCHOR) |"
        for name, source in followed().items()
        if rows.get(name, of_groups.get(group_row(name))) != source
    ]
    assert not missing, "Add to the table in docs/alerts.md:\n" + "\n".join(missing)
    groups = {group_row(name) for name in CHECKS} | {f"{BY_HAND_GROUP}/*"}
    unknown = sorted(set(rows) - set(followed()) - groups)
    assert not unknown, f"Remove from the table in docs/alerts.md, nothing is called so: {unknown}"


def test_what_is_wrong_with_money_is_p0_and_what_is_late_p1() -> None:
    table = read_alert_table({})
    for name in ("every_paid_order_has_its_points", "expiry_succeeded_lately", "few_updates_wait_in_the_queue"):
        assert (table.row(name).red, table.row(name).yellow) == (Severity.P1, Severity.P2)
    assert table.row("no_order_is_awarded_twice").red is Severity.P0


@pytest.mark.parametrize("name", sorted(read_alert_table({}).rows))
def test_every_row_names_a_runbook_that_exists(name: str) -> None:
    row = read_alert_table({}).row(name)
    if row.red is None:
        return
    path, _, anchor = row.runbook.partition("#")
    assert path, f"{name} names no runbook"
    assert not anchor or anchor in anchors(f"docs/{path}")


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_checks_description_ends_with_a_section_that_exists_and_begins_with_its_name(name: str) -> None:
    found = re.search(r" Runbook: (docs/runbooks/[\w-]+\.md)#(\S+)$", CHECKS[name].description or "")
    assert found, f"{name}: describe it with described(text, runbook, heading) of checks/runbooks.py"
    assert found[2] in anchors(found[1]), f"{found[1]} has no section {found[2]}"
    runbook = read_alert_table({}).row(name, CHECKS[name].asset_key.to_user_string()).runbook
    if name not in read_alert_table({}).rows:
        # Checks that an operator may add and rename share sections; the row of their group leads to the runbook.
        assert runbook == found[1].removeprefix("docs/")
        return
    assert found[2].startswith(SECTIONS.get(name, name))
    assert runbook == f"{found[1].removeprefix('docs/')}#{found[2]}"


# --- a table that can't be used ---


def test_a_table_is_read_whatever_stands_around_it() -> None:
    table = parse_alert_table(f"# Alerts\n\n| other | table |\n|---|---|\n| 1 | 2 |\n\ntext\n{TABLE}\nmore")
    assert table.row("a").runbook == "runbooks/a.md#a-is-red"
    assert (table.row("a").red, table.row("unheard of").red, table.row("quiet").red) == (
        Severity.P0,
        Severity.P1,
        None,
    )


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("| when red |", "| red |", "none found"),
        ("| check | b | P1 |", "| check | b | P7 |", "line 5: a severity of 'b' is 'P7'"),
        ("| check | b |", "| chekc | b |", "line 5: the source of 'b' is 'chekc', none of check, job"),
        ("| check | b |", "| check | a |", "line 5: 'a' has two rows"),
        ("| check | b |", "| check | |", "line 5: a row has no name"),
        ("| * | * | P1 | P2 | |\n", "", "no row has the name \\*"),
        ("| * | * | P1 | P2 | |\n", f"| * | * | P1 | P2 | |\n{TABLE}", "2 tables found"),
        ("| check | b | P1 | P2 | |", "| check | b |", "a severity of 'b' is ''"),
    ],
)
def test_a_table_that_cannot_be_used_says_which_line_and_what_was_expected(was: str, becomes: str, said: str) -> None:
    with pytest.raises(AlertTableError, match=said) as caught:
        parse_alert_table(TABLE.replace(was, becomes))
    assert "Until it is corrected, red is P1 and yellow is P2." in str(caught.value)


def test_a_table_of_ones_own_is_found_from_where_dagster_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.md").write_text(TABLE)
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("")
    for name in ("LOYALTY_DATABASE_URL", "DAGSTER_POSTGRES_URL"):
        monkeypatch.setenv(name, "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for named in ("mine.md", "~/mine.md"):
        monkeypatch.setenv("LOYALTY_ALERT_TABLE", named)
        assert read_alert_table().row("c").red is Severity.P2
        assert dagster_environment()["LOYALTY_ALERT_TABLE"] == str(tmp_path / "mine.md")
    monkeypatch.setenv("LOYALTY_ALERT_TABLE", " ")
    assert "LOYALTY_ALERT_TABLE" not in dagster_environment()


# --- settings ---


def test_what_is_not_set_has_a_default_and_all_channels_are_tried_in_order() -> None:
    found = alert_settings(
        {
            "LOYALTY_ALERT_EMAIL_TO": "ops@example.com, oncall@example.com",
            "LOYALTY_MAIL_URL": "console:",
            "LOYALTY_ALERT_SLACK_URL": "https://hooks.slack.com/services/T/B/X",
        }
    )
    assert (found.problems, found.channels) == ((), ("slack", "email"))
    assert set(found.routes.values()) == {("slack", "email")}
    assert found.remind_after == REMIND_AFTER


@pytest.mark.parametrize(
    ("text", "hours"),
    [("6", (6, 6, 6)), ("1, 2,3", (1, 2, 3)), ("0.5,0,24", (0.5, None, 24)), ("0", (None, None, None))],
)
def test_reminders_have_hours_of_their_own_or_none(text: str, hours: tuple[float | None, ...]) -> None:
    found = alert_settings({"LOYALTY_ALERT_REMIND_HOURS": text})
    assert found.problems == ()
    assert tuple(found.remind_after.values()) == tuple(timedelta(hours=one) if one else None for one in hours)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LOYALTY_ALERT_SLACK_URL", "hooks.example.com/s3cret", "LOYALTY_ALERT_SLACK_URL is no address"),
        ("LOYALTY_ALERT_WEBHOOK_URL", "ftp://example.com/s3cret", "LOYALTY_ALERT_WEBHOOK_URL is no address"),
        ("LOYALTY_ALERT_WEBHOOK_URL", "https://example.com:s3cret/", "LOYALTY_ALERT_WEBHOOK_URL is no address"),
        ("LOYALTY_ALERT_WEBHOOK_URL", "https://a/s3cret and more", "LOYALTY_ALERT_WEBHOOK_URL is no address"),
        (
            "LOYALTY_ALERT_EMAIL_TO",
            "ops@example.com, s3cret",
            "Entry 2 of LOYALTY_ALERT_EMAIL_TO is no e-mail",
        ),
        ("LOYALTY_MAIL_URL", "smtp://u:s3cret@", "no mail can be sent: LOYALTY_MAIL_URL names no server"),
        ("LOYALTY_MAIL_URL", "", "no mail can be sent: LOYALTY_MAIL_URL is not set"),
        ("LOYALTY_ALERT_P0", "pager,webhook", "LOYALTY_ALERT_P0 names a channel that does not exist"),
        ("LOYALTY_ALERT_P0", "slack", "LOYALTY_ALERT_P0 names slack, but LOYALTY_ALERT_SLACK_URL is not set"),
        ("LOYALTY_ALERT_REMIND_HOURS", "1,2", "LOYALTY_ALERT_REMIND_HOURS can't be read"),
        ("LOYALTY_ALERT_REMIND_HOURS", "nan", "LOYALTY_ALERT_REMIND_HOURS can't be read"),
        ("LOYALTY_ALERT_REMIND_HOURS", "-1", "LOYALTY_ALERT_REMIND_HOURS can't be read"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_without_its_value_and_costs_one_channel(
    name: str, value: str, said: str
) -> None:
    usable = {
        "LOYALTY_ALERT_WEBHOOK_URL": "https://example.com/hook",
        "LOYALTY_ALERT_EMAIL_TO": "ops@example.com",
        "LOYALTY_MAIL_URL": "console:",
    }
    found = alert_settings({**usable, name: value})
    (problem,) = found.problems
    assert said in problem
    assert "s3cret" not in problem + repr(found)
    assert found.channels
    assert all(found.routes.values()), "somebody is told"


# --- when it is over ---


def seen(*names: str) -> list[Graded]:
    return [Graded(symptom=symptom(name), severity=Severity.P1, runbook="") for name in names]


def test_the_time_that_a_problem_has_to_stay_away_doubles_and_has_an_end() -> None:
    assert [quiet_time(returns).total_seconds() / 60 for returns in range(6)] == [5, 10, 20, 40, 80, 120]
    assert quiet_time(10_000) == LONGEST_QUIET


def test_what_comes_back_within_a_day_has_to_stay_away_for_longer_and_is_forgotten_after_it() -> None:
    (started,) = compare([], seen("b"), undecided=(), as_of=NOW)
    assert (started.returns, started.started_at < NOW) == (0, True)
    (gone,) = compare([started], [], undecided=(), as_of=NOW)
    assert compare([gone], [], undecided=(), as_of=NOW + timedelta(minutes=4, seconds=59)) == []
    (back,) = compare([gone], seen("b"), undecided=(), as_of=NOW + timedelta(minutes=4))
    assert (back.gone_since, back.returns) == (None, 1)
    (over,) = compare([gone], [], undecided=(), as_of=NOW + timedelta(minutes=5))
    assert over.ended_at == NOW
    (again,) = compare([over], seen("b"), undecided=(), as_of=NOW + timedelta(hours=23))
    (later,) = compare([over], seen("b"), undecided=(), as_of=NOW + timedelta(hours=25))
    assert (again.returns, later.returns) == (1, 0)


def test_a_failed_run_whose_problem_is_over_is_no_new_problem_and_a_later_one_is() -> None:
    over = problem("drain", source="job", ended_at=NOW)

    def found(known: Problem, since: timedelta, source: Source = Source.JOB) -> list[Problem]:
        failed = Graded(symptom=symptom("drain", source=source, since=NOW + since), severity=Severity.P1, runbook="")
        return compare([known], [failed], undecided=(), as_of=NOW + timedelta(days=5))

    minute = timedelta(minutes=1)
    assert found(over, -minute) == []
    assert len(found(over, minute)) == 1
    (gone,) = found(problem("drain", problem_id=8, source="job"), -minute)
    assert gone.ended_at is None, "its own problem is open"
    assert len(found(problem("drain", ended_at=NOW), -minute, Source.CHECK)) == 1, "a check says how it is now"


def test_nothing_is_said_of_what_is_gone_and_may_come_back() -> None:
    told = {"notified_severity": Severity.P1, "first_notified_at": NOW, "last_notified_at": NOW}
    later = NOW + timedelta(days=1)

    def event(found: Problem) -> Event | None:
        return due_event(found, as_of=later, remind_after=REMIND_AFTER, is_silent=False)

    assert event(problem(**told)) is Event.REMINDER
    assert event(problem(**told, gone_since=NOW)) is None
    assert event(problem(gone_since=NOW)) is None


# --- words ---


def problem(name: str = "b", **more: object) -> Problem:
    values = {
        "problem_id": 7, "name": name, "source": "check", "severity": Severity.P1, "title": f"{name} is red",
        "detail": "3 orders.", "merchants": ("m1",), "numbers": {}, "runbook": "runbooks/a.md#b", "place": "/runs/1",
        "started_at": NOW - timedelta(minutes=90), **more,
    }  # fmt: skip
    return Problem(**values)  # type: ignore[arg-type]


def claimed(found: Problem, event: Event = Event.STARTED) -> Claimed:
    return Claimed(problem=found, event=event, leased_until=NOW)


def test_a_message_says_what_since_when_how_bad_what_to_do_and_where() -> None:
    links = Links(dagster="https://d", docs="https://g")
    assert message_about([claimed(problem())], links=links, as_of=NOW).text.splitlines() == [
        "P1 b is red",
        "Since 2026-11-20 05:30 UTC (90 min).",
        "3 orders.",
        "Merchants: m1",
        "What to do: https://g/docs/runbooks/a.md#b",
        "In Dagster: https://d/runs/1",
    ]
    without = message_about([claimed(problem())], links=Links(), as_of=NOW).text
    assert "What to do: docs/runbooks/a.md#b" in without
    assert "In Dagster" not in without


def test_an_all_clear_says_from_when_to_when_and_what_it_was_at_its_worst() -> None:
    over = problem(ended_at=NOW, notified_severity=Severity.P0, severity=Severity.P2)
    message = message_about([claimed(over, Event.ENDED)], links=Links(), as_of=NOW)
    assert message.text.splitlines() == [
        "P0 over: b is red",
        "From 2026-11-20 05:30 to 2026-11-20 07:00 UTC (90 min).",
    ]


def test_a_message_about_many_names_the_worst_first_and_what_is_over_last() -> None:
    found = [
        claimed(problem("over", ended_at=NOW, notified_severity=Severity.P0), Event.ENDED),
        claimed(problem("late"), Event.REMINDER),
        claimed(problem("bad", severity=Severity.P0)),
    ]
    message = message_about(found, links=Links(), as_of=NOW)
    assert message.subject == "2 problems (1 P0, 1 P1, 1 over): bad, late, over"
    assert re.findall(r"^P\d .*$", message.text, re.MULTILINE) == [
        "P0 bad is red",
        "P1 still: late is red",
        "P0 over: over is red",
    ]


def test_a_message_about_very_many_has_an_end() -> None:
    message = message_about([claimed(problem(f"p{n:03}")) for n in range(200)], links=Links(), as_of=NOW)
    assert message.text.count("\nP1 ") == 50
    assert "and 150 more: 'loyalty alerts list' has all." in message.text


def test_slack_gets_no_link_mention_or_entity_that_a_shop_has_written() -> None:
    message = message_about([claimed(problem(detail="<!channel> & co"))], links=Links(), as_of=NOW)
    assert "&lt;!channel&gt; &amp; co" in message.slack
    assert "*P1 b is red*" in message.slack


def test_an_address_in_a_text_is_in_no_alert_and_control_characters_are_in_none() -> None:
    dirty = Graded(
        symptom=symptom("b", detail="of ann@example.com\r\nX-Header: 1", title="b\nis red"),
        severity=Severity.P1,
        runbook="",
    )
    (started,) = compare([], [dirty], undecided=(), as_of=NOW)
    assert "ann@" not in started.detail
    assert "\n" not in started.detail + started.title
    assert State.BROKEN.value == "could not run"
