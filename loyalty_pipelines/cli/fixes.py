"""`loyalty subscriptions plan | approve | apply | undo | history`: what would put findings right, and doing it."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import NUMBER as DECIMAL
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, print_json, print_table, say
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.cli.queue import NUMBER
from loyalty_pipelines.cli.subscriptions import (
    actor_option,
    done_by,
    limit_option,
    merchant_option,
    money,
    print_findings,
    require_known,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from loyalty_pipelines.domain.fix_plans import FixPlan, MerchantFixes, PlanRefusal


@click.command()
@merchant_option
@click.option("--number", "numbers", type=NUMBER, multiple=True, metavar="FINDING", help="Only these findings.")
@actor_option
@json_option
def plan(merchant: str | None, numbers: tuple[int, ...], actor: str | None, as_json: bool) -> None:
    """Plan what would put open findings right, or say why a person has to. Changes nothing of the shop.

    Plans of policy A are applied by the next run; those of policy P wait for 'loyalty subscriptions approve'.
    """
    from loyalty_pipelines.db.fix_plans_run import plan_fixes
    from loyalty_pipelines.domain.fix_plans import FixPlan, PlanRefusal

    with database(as_json=as_json) as engine:
        _require(engine, merchant)
        found = plan_fixes(
            engine,
            None if merchant is None else [merchant],
            actor=actor or current_user(),
            finding_ids=list(numbers) or None,
        )
    plans = [one for one in found if isinstance(one, FixPlan)]
    refusals = [one for one in found if isinstance(one, PlanRefusal)]
    if as_json:
        print_json({"plans": plans, "refusals": refusals})
    else:
        _print_planned(plans, refusals)


def _require(engine: "Engine", merchant: str | None = None) -> None:
    from loyalty_pipelines.db.engine import reading

    with reading(engine) as conn:
        require_ready(conn)
        require_known(conn, merchant)


def _print_planned(plans: Sequence["FixPlan"], refusals: Sequence["PlanRefusal"]) -> None:
    if not plans and not refusals:
        say("Nothing to plan: nothing is open.")
        return
    if plans:
        _print_plans(plans)
    if refusals:
        print_table(
            ("finding", "merchant", "class", "object", "why it has no plan"),
            [
                (
                    str(one.finding_id),
                    one.merchant_id,
                    one.class_name,
                    f"{one.object_type} {one.object_id}",
                    one.reason,
                )
                for one in refusals
            ],
            numbers=("finding",),
        )
    numbers = Counter(f"{one.policy} {one.status}" if one.status == "planned" else one.status for one in plans)
    parts = [f"{counted(numbers['A planned'], 'plan')} for the next run", f"{numbers['P planned']:,} to be approved"]
    parts += [f"{numbers[status]:,} {words}" for status, words in OTHER_STATUSES.items() if numbers[status]]
    say(f"{', '.join(parts)}, {counted(len(refusals), 'finding')} without a plan.")


OTHER_STATUSES = {
    "approved": "approved for the next run",
    "failed": "failed (approve it to have it tried again)",
    "applied": "applied, and not compared since",
}


def _print_plans(plans: Sequence["FixPlan"]) -> None:
    print_table(
        ("plan", "finding", "merchant", "class", "policy", "status", "money", "what it does"),
        [
            (
                str(one.plan_id),
                str(one.finding_id),
                one.merchant_id,
                one.class_name,
                one.policy,
                one.status,
                money(one.amount, one.currency),
                one.explanation if one.failure is None else f"{one.explanation} Last failure: {one.failure}",
            )
            for one in plans
        ],
        numbers=("plan", "finding", "money"),
    )


@click.command()
@click.argument("plans", type=NUMBER, nargs=-1, required=True, metavar="PLAN...")
@actor_option
@json_option
def approve(plans: tuple[int, ...], actor: str | None, as_json: bool) -> None:
    """Approve each PLAN: the next run applies it, if it still fits. All are approved or none."""
    from loyalty_pipelines.db.fix_plans_run import approve_plans

    with database(as_json=as_json) as engine:
        _require(engine)
        approved = approve_plans(engine, plans, actor=actor or current_user())
    if as_json:
        print_json({"plans": approved})
        return
    for one in approved:
        say(f"Plan {one.plan_id} is approved: {one.explanation}")
    say("The next run applies what still fits; 'loyalty subscriptions apply' does it now.")


@click.command()
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Do all of it, roll it back, and say what would be done.")
@merchant_option
@click.option("--max-fixes", type=click.IntRange(0), help="Lowers the limit of fixes of each merchant.")
@click.option("--max-money", type=DECIMAL, help="Lowers the limit of money of each merchant.")
@click.option("--plan", "plans", type=NUMBER, multiple=True, metavar="PLAN", help="Only these plans.")
@actor_option
@json_option
def apply(
    is_dry_run: bool,
    merchant: str | None,
    max_fixes: int | None,
    max_money: Decimal | None,
    plans: tuple[int, ...],
    actor: str | None,
    as_json: bool,
) -> None:
    """Apply plans of policy A and approved ones, each after asking again under lock whether it still fits.

    Plans what is missing first, compares what it fixed afterwards. Exit status 1: a fix failed, or a limit stopped it.
    """
    from loyalty_pipelines.db.fix_plans_run import apply_fixes

    with database(as_json=as_json) as engine:
        _require(engine, merchant)
        done = list(
            apply_fixes(
                engine,
                None if merchant is None else [merchant],
                is_dry_run=is_dry_run,
                actor=actor or current_user(),
                max_fixes=max_fixes,
                max_money=max_money,
                plan_ids=list(plans) or None,
            )
        )
    if as_json:
        print_json({"merchants": [{**_plain(one), "money": one.money, "sentence": one.sentence} for one in done]})
    else:
        _print_applied(done)
    if any(one.failed or one.failure or one.stopped_by in ("max_fixes", "max_money", "locked") for one in done):
        click.get_current_context().exit(1)


def _plain(one: "MerchantFixes") -> dict[str, object]:
    names = ("merchant_id", "is_dry_run", "planned", "waiting", "stopped_by", "limit", "failure", "counts", "outcomes")
    return {name: getattr(one, name) for name in names}


def _print_applied(done: Sequence["MerchantFixes"]) -> None:
    outcomes = [one for merchant in done for one in merchant.outcomes]
    if outcomes:
        is_dry_run = any(one.is_dry_run for one in done)
        print_table(
            ("plan", "merchant", "class", "money", "outcome", ""),
            [
                (
                    str(one.plan.plan_id),
                    one.plan.merchant_id,
                    one.plan.class_name,
                    money(one.plan.amount, one.plan.currency),
                    "would be applied" if is_dry_run and one.outcome == "applied" else one.outcome,
                    one.text,
                )
                for one in outcomes
            ],
            numbers=("plan", "money"),
        )
    for one in done:
        say(one.sentence)
    if not done:
        say("Nothing to fix: nothing is open.")
    elif any(one.is_dry_run for one in done):
        say("It was a dry run: nothing was written.")


@click.command()
@click.argument("number", type=NUMBER, metavar="PLAN")
@actor_option
@json_option
def undo(number: int, actor: str | None, as_json: bool) -> None:
    """Take back what PLAN did, if nobody changed it since; the shop's row is as it was, byte for byte."""
    from loyalty_pipelines.db.fix_plans_run import undo_plan

    with database(as_json=as_json) as engine:
        _require(engine)
        undone = undo_plan(engine, number, actor=actor or current_user())
    if as_json:
        print_json({"undone": undone})
    else:
        say(
            f"Plan {number} is undone, and what it was about was compared again. A plan for the same needs approval "
            "from now on."
        )


@click.command()
@merchant_option
@click.option(
    "--object", "object_", type=(TEXT, TEXT), metavar="TYPE ID", help="Of one payment, subscription or order."
)
@limit_option
@json_option
def history(merchant: str | None, object_: tuple[str, str] | None, limit: int, as_json: bool) -> None:
    """List plans with what became of them, and findings with when they opened and closed, the newest first."""
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        require_known(conn, merchant)
        _show_history(conn, merchant, object_ or (None, None), limit, as_json=as_json)


def _show_history(
    conn: "Connection", merchant: str | None, object_: tuple[str | None, str | None], limit: int, *, as_json: bool
) -> None:
    from loyalty_pipelines.db import fix_plans, subscription_findings

    object_type, object_id = object_
    plans = fix_plans.plans(
        conn,
        merchant_ids=None if merchant is None else [merchant],
        object_type=object_type,
        object_id=object_id,
        limit=limit,
    )
    found = subscription_findings.of_object(
        conn, merchant_id=merchant, object_type=object_type, object_id=object_id, limit=limit
    )
    held = fix_plans.held(conn, [one.finding_id for one in found])
    if as_json:
        print_json({"plans": plans, "findings": found, "fixed_before": sorted(held)})
        return
    if not plans and not found:
        say("No history.")
        return
    if plans:
        print_table(
            ("plan", "merchant", "class", "object", "status", "by", "what it does"),
            [
                (
                    str(one.plan_id),
                    one.merchant_id,
                    one.class_name,
                    f"{one.object_type} {one.object_id}",
                    one.status if one.failure is None else f"{one.status}: {one.failure}",
                    done_by(one),
                    one.explanation,
                )
                for one in plans
            ],
            numbers=("plan",),
        )
    if found:
        print_findings(found, held=held)
