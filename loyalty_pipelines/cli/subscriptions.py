"""`loyalty subscriptions`: compare payments with subscriptions, see what is wrong; `fixes.py` puts it right."""

import os
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import INSTANT, TEXT
from loyalty_pipelines.cli.option_types import NUMBER as DECIMAL
from loyalty_pipelines.cli.output import counted, print_json, print_table, say, shown
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.cli.queue import NUMBER

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from loyalty_pipelines.domain.findings import Finding
    from loyalty_pipelines.domain.fix_plans import FixPlan
    from loyalty_pipelines.domain.subscriptions import MerchantComparison, SubscriptionSettings

merchant_option = click.option("--merchant", type=TEXT, help="Only this merchant.")
actor_option = click.option("--actor", type=TEXT, help="Who decided it (you).")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most."
)


@click.group()
def subscriptions() -> None:
    """Find and fix mismatches between what customers paid and the subscriptions that they have."""


@subscriptions.command()
@click.option("--full", is_flag=True, help="Compare everything, not only what the shop changed since the last check.")
@merchant_option
@click.option("--as-of", type=INSTANT, help="Compare as if it were this instant (default: now).")
@json_option
def check(full: bool, merchant: str | None, as_of: datetime | None, as_json: bool) -> None:
    """Compare all merchants, or one. Exit status 1: something is open, or a merchant could not be compared."""
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.subscriptions_run import check as compare

    with database(as_json=as_json) as engine:
        with reading(engine) as conn:
            require_ready(conn)
            require_known(conn, merchant)
        done = list(compare(engine, None if merchant is None else [merchant], is_full=full, as_of=as_of))
    if as_json:
        print_json({"merchants": done})
    else:
        _print_comparison(done)
    if any(one.findings or one.failure for one in done):
        click.get_current_context().exit(1)


def _print_comparison(done: Sequence["MerchantComparison"]) -> None:
    from loyalty_pipelines.domain.money import money_text, total_money

    wrong = [one for one in done if one.findings]
    if wrong:
        print_table(
            ("merchant", "class", "findings", "at risk", "since"),
            [
                (
                    one.merchant_id,
                    found.class_name,
                    found.findings,
                    money(found.amount_at_risk, found.currency),
                    found.first_seen_at,
                )
                for one in wrong
                for found in one.findings
            ],
            numbers=("findings", "at risk"),
        )
    payments, sold = (sum(getattr(one, name) for one in done) for name in ("payments", "subscriptions"))
    at_risk = total_money(one.amounts_at_risk for one in done)
    in_full = sum(one.is_full for one in done)
    say(
        f"{counted(len(done), 'merchant')} compared ({in_full:,} in full): {counted(payments, 'payment')}, "
        f"{counted(sold, 'subscription')}, {counted(sum(one.open_findings for one in done), 'open finding')}"
        f"{f', {money_text(at_risk)} at risk' if at_risk else ''}."
    )
    for one in done:
        if one.failure:
            click.echo(f"Error: merchant {one.merchant_id} could not be compared: {one.failure}", err=True)
    if wrong:
        say("'loyalty subscriptions findings' shows them, 'loyalty subscriptions plan' says what would fix them.")


@subscriptions.command("findings")
@merchant_option
@click.option("--class", "class_name", type=TEXT, help="Only findings of this class.")
@click.option("--customer", type=TEXT, help="Only findings whose evidence names this customer.")
@click.option("--all", "is_all", is_flag=True, help="Closed and accepted findings, too.")
@click.option("--number", type=NUMBER, help="One finding, with its evidence, its plans, and what was found before.")
@limit_option
@json_option
def findings_(
    merchant: str | None,
    class_name: str | None,
    customer: str | None,
    is_all: bool,
    number: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what is wrong, the costliest first."""
    from loyalty_pipelines.db import findings as db
    from loyalty_pipelines.db import fix_plans
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.subscriptions import SUBJECT, require_class

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        require_known(conn, merchant)
        if number is not None:
            _show_finding(conn, number, as_json=as_json)
            return
        found = db.findings(
            conn,
            subject=SUBJECT,
            merchant_id=merchant,
            classes=None if class_name is None else [require_class(class_name)],
            customer_id=customer,
            is_closed_too=is_all,
            limit=limit + 1,
        )
        held = fix_plans.held(conn, [one.finding_id for one in found[:limit]])
    if as_json:
        print_json({"findings": found[:limit], "is_more": len(found) > limit, "fixed_before": sorted(held)})
        return
    if not found:
        say("No findings.")
        return
    print_findings(found[:limit], held=held)
    if len(found) > limit:
        say("There are more; --limit shows them.")


def print_findings(found: Sequence["Finding"], *, held: Collection[int]) -> None:
    """Print findings as a table; closed and accepted ones say so, and those that only an earlier fix `held`."""
    print_table(
        ("number", "merchant", "class", "policy", "object", "at risk", "since", "age", "seen", "is"),
        [
            (
                str(one.finding_id),
                one.merchant_id,
                one.class_name,
                FIXED_BEFORE if one.finding_id in held else one.policy,
                f"{one.object_type} {one.object_id}",
                money(one.amount_at_risk, one.currency),
                one.first_seen_at,
                (one.closed_at or datetime.now(UTC)) - one.first_seen_at,
                one.times_seen,
                _state(one),
            )
            for one in found
        ],
        numbers=("number", "at risk", "seen"),
    )


def _state(one: "Finding") -> str:
    if one.closed_at is not None:
        return f"closed {shown(one.closed_at)}"
    return f"accepted by {one.accepted_by}" if one.accepted_at else "open"


def _show_finding(conn: "Connection", number: int, *, as_json: bool) -> None:
    from loyalty_pipelines.db import fix_plans, subscription_findings
    from loyalty_pipelines.domain.alert_settings import alert_settings
    from loyalty_pipelines.domain.subscriptions import BY_CODE

    one = subscription_findings.finding(conn, number)
    plans = fix_plans.plans(conn, merchant_ids=[one.merchant_id], finding_ids=[number])
    same = subscription_findings.of_object(
        conn, merchant_id=one.merchant_id, object_type=one.object_type, object_id=one.object_id
    )
    others = [other for other in same if other.finding_id != number]
    held = fix_plans.held(conn, [other.finding_id for other in same])
    meaning = BY_CODE[one.class_name].meaning if one.class_name in BY_CODE else None
    if as_json:
        document = {"finding": one, "expected": meaning, "plans": plans, "of_the_same_object": others}
        print_json({**document, "fixed_before": sorted(held)})
        return
    say(f"Finding {number}: {one.class_name} of {one.object_type} {one.object_id} at {one.merchant_id}")
    for name, value in (
        ("expected", meaning),
        ("severity", one.severity),
        ("policy", POLICIES.get(FIXED_BEFORE if number in held else one.policy or "")),
        ("at risk", money(one.amount_at_risk, one.currency)),
        ("since", one.first_seen_at),
        ("last seen", f"{shown(one.last_seen_at)}, {counted(one.times_seen, 'time')}"),
        ("closed", one.closed_at),
        ("accepted", f"by {one.accepted_by}: {one.accepted_because}" if one.accepted_at else None),
        ("run", one.run_id),
        ("what to do", alert_settings(os.environ).links.to_runbook(f"runbooks/subscriptions.md#{one.class_name}")),
        *((f"  {name}", _readable(value)) for name, value in one.evidence.items()),
    ):
        if value is not None:
            say(f"  {name:<26}{shown(value)}")
    for plan in plans:
        say(f"  plan {plan.plan_id} (policy {plan.policy}) is {plan.status}: {plan.explanation}")
    if others:
        say("What else was found of it:")
        print_findings(others, held=held)


def _readable(value: object) -> object:
    """Return a value of the evidence as people read it: lists without brackets, instants as everywhere else."""
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    if isinstance(value, str) and INSTANT_IN_JSON.fullmatch(value):
        return datetime.fromisoformat(value)
    return value


# As PostgreSQL writes a timestamptz into jsonb, in a session whose time zone is UTC.
INSTANT_IN_JSON = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00")
# A, if it had not been: see the rule in domain/fix_plans.py.
FIXED_BEFORE = "P (fixed before)"
POLICIES = {
    "A": "A: 'loyalty subscriptions apply' fixes it, or fix_subscriptions_schedule if it is on",
    "P": "P: a person approves its plan",
    "H": "H: a person decides",
    FIXED_BEFORE: "P: a person approves its plan, because it was fixed in the last week, or a fix was undone",
}


@subscriptions.command()
@click.argument("number", type=NUMBER, required=False)
@click.option("--class", "class_name", type=TEXT, help="All open findings of this class, of one --merchant.")
@click.option("--merchant", type=TEXT, help="Whose findings of the --class.")
@click.option("--reason", type=TEXT, required=True, help="Why it may stay as it is; kept with the finding.")
@actor_option
@json_option
def accept(
    number: int | None, class_name: str | None, merchant: str | None, reason: str, actor: str | None, as_json: bool
) -> None:
    """Leave what finding NUMBER says as it is: it is open no more, and not fixed, as long as it stays the same.

    With --class and --merchant instead of NUMBER: all of them.
    """
    from loyalty_pipelines.db import subscription_findings
    from loyalty_pipelines.domain.subscriptions import require_class

    who = actor or current_user()
    if (number is None) == (class_name is None) or (class_name is None) != (merchant is None):
        raise click.UsageError("Name the finding's NUMBER, or --class and --merchant for many.")
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        if number is not None:
            one = subscription_findings.accept(conn, number, reason=reason, actor=who)
            accepted = 1
            text = f"Finding {number}, {one.class_name} of {one.object_type} {one.object_id} at {one.merchant_id}, is"
        else:
            require_known(conn, merchant)
            accepted = subscription_findings.accept_all(
                conn, merchant_id=merchant or "", class_name=require_class(class_name or ""), reason=reason, actor=who
            )
            what = f"{counted(accepted, 'open finding')} of class {class_name} at {merchant}"
            text = f"{what} {'is' if accepted == 1 else 'are'}"
    if as_json:
        print_json({"accepted": accepted})
    else:
        say(f"{text} accepted.")


@subscriptions.command()
@click.option("--merchant", type=TEXT, required=True, help="Whose settings.")
@click.option("--report-only/--fix", "is_report_only", default=None, help="Only report, or fix.")
@click.option("--max-fixes", type=int, help="How many fixes one run may apply.")
@click.option("--max-money", type=DECIMAL, help="How much money the fixes of one run may be about.")
@click.option("--tolerance-percent", type=DECIMAL, help="Amounts that differ by less are equal.")
@click.option("--grace-minutes", type=int, help="No class reports a row that is younger.")
@actor_option
@json_option
def settings(
    merchant: str,
    is_report_only: bool | None,
    max_fixes: int | None,
    max_money: Decimal | None,
    tolerance_percent: Decimal | None,
    grace_minutes: int | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Show how a merchant is compared and fixed; with options, change it."""
    from dataclasses import replace

    from loyalty_pipelines.db import subscription_settings

    given = {
        "is_report_only": is_report_only,
        "max_fixes": max_fixes,
        "max_money": max_money,
        "tolerance_percent": tolerance_percent,
        "grace_minutes": grace_minutes,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        require_known(conn, merchant)
        found = subscription_settings.get(conn, merchant)
        if changes:
            found = subscription_settings.save(conn, replace(found, **changes), actor=actor or current_user())
    if as_json:
        print_json({"settings": found})
    else:
        _print_settings(found)


def _print_settings(found: "SubscriptionSettings") -> None:
    changed = f", set by {found.changed_by} at {shown(found.changed_at)}" if found.changed_by else " (the defaults)"
    say(f"{found.merchant_id} {'is report only' if found.is_report_only else 'may be fixed'}{changed}.")
    for name, value in (
        ("fixes of one run", found.max_fixes),
        ("money of one run", found.max_money),
        ("tolerance", f"{shown(found.tolerance_percent)} %"),
        ("grace", f"{found.grace_minutes:,} minutes, or longer where a class says so"),
    ):
        say(f"  {name:<26}{shown(value)}")


def money(amount: Decimal, currency: str | None) -> str:
    """Return an amount with its currency, as reports and mails have it."""
    from loyalty_pipelines.domain.money import amount_text

    return amount_text(amount, currency)


def require_known(conn: "Connection", merchant: str | None) -> None:
    """Raise unless the merchant is known, if only by its findings: of a typo there is nothing wrong."""
    from loyalty_pipelines.db import integrity_repairs, programs

    if merchant is not None and not integrity_repairs.has_records(conn, merchant):
        programs.require_merchant(conn, merchant)


def done_by(plan: "FixPlan") -> str:
    """Return who did last what to a plan, and when."""
    for verb, who, when in (
        ("undone", plan.undone_by, plan.undone_at),
        ("applied", plan.applied_by, plan.applied_at),
        ("approved", plan.approved_by, plan.approved_at),
    ):
        if who is not None:
            return f"{verb} by {who}, {shown(when)}"
    return f"planned by {plan.planned_by}, {shown(plan.planned_at)}"
