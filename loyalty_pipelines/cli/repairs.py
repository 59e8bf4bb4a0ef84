"""`loyalty account adjust`, `restore` and `merge`: putting a balance right by hand."""

import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.base import database, is_quiet, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, note, print_json, print_table, say, shown
from loyalty_pipelines.domain.merges import Merge, MergeReport
from loyalty_pipelines.domain.repairs import MAX_POINTS, Adjustment, AdjustmentReport, ImpossibleRepairError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

DRY_RUN = "It was a dry run: nothing was written."


def _said_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--actor", type=TEXT, required=True, help="Who decided it; the ledger keeps the name."),
        click.option("--reason", type=TEXT, required=True, help="Why; the ledger keeps the words."),
    ):
        command = option(command)
    return command


def _adjustment_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        json_option,
        click.option("--dry-run", is_flag=True, help="Show what would happen and write nothing."),
        click.option(
            "--reference", type=TEXT, help="A key of yours, such as a ticket: the same one is done once (a new one)."
        ),
        _said_options,
    ):
        command = option(command)
    return command


# Without this, -50 would be read as an option of that name.
@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("merchant", type=TEXT)
@click.argument("customer", type=TEXT)
@click.argument("points", type=click.IntRange(-MAX_POINTS, MAX_POINTS))
@_adjustment_options
def adjust(**arguments: Any) -> None:
    """Add POINTS to the balance of CUSTOMER at MERCHANT, or take them: -50 takes 50.

    Takes no more than is there and not held, unless the programme's clawback is allow_negative. Counts as activity.
    """
    _adjust(**arguments)


@click.command()
@click.argument("merchant", type=TEXT)
@click.argument("customer", type=TEXT)
@click.argument("points", type=click.IntRange(1, MAX_POINTS))
@_adjustment_options
def restore(**arguments: Any) -> None:
    """Give POINTS back to CUSTOMER at MERCHANT, for example points that should not have expired.

    Counts as activity, so that they don't expire again the next night.
    """
    _adjust(**arguments)


def _adjust(
    merchant: str,
    customer: str,
    points: int,
    reason: str,
    actor: str,
    reference: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from loyalty_pipelines.db import repairs

    key = reference or str(uuid.uuid4())
    try:
        wanted = Adjustment(
            merchant_id=merchant, customer_id=customer, points=points, reason=reason, actor=actor, reference=key
        )
    except ImpossibleRepairError as error:
        raise click.UsageError(str(error)) from error
    with database(as_json=as_json) as engine:
        if not (reference or dry_run or as_json or is_quiet()):
            # Said before it is done: if the answer is lost, repeating it with this key does it once.
            note(f"reference: {key}")
        report = _run(engine, lambda conn: repairs.adjust(conn, wanted), is_kept=not dry_run)
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run})
    else:
        _print_adjustment(report, is_dry_run=dry_run)


def _run(engine: "Engine", work: Callable[["Connection"], Any], *, is_kept: bool) -> Any:
    """Run `work` in a transaction; one that is not kept shows exactly what would happen."""
    with engine.connect() as conn, conn.begin() as transaction:
        require_ready(conn)
        report = work(conn)
        if not is_kept:
            transaction.rollback()
    return report


def _print_adjustment(report: AdjustmentReport, *, is_dry_run: bool) -> None:
    customer = f"Customer {report.account_customer_id} at {report.merchant_id}"
    if report.account_customer_id != report.customer_id:
        say(f"Customer {report.customer_id} was merged into {report.account_customer_id}, who has the points.")
    if report.is_repeated:
        say(f"{customer}: already done, nothing was written.")
    else:
        say(f"{customer}{', a new account' if report.is_account_new else ''}: {report.points:+,} points")
    for name, value in (
        ("balance", f"{report.balance_before:,} -> {report.balance_after:,}"),
        ("entry", report.seq),
        ("expires", _changed(report.expires_before, report.expires_at)),
    ):
        say(f"  {name:<15}{shown(value)}")
    if not is_dry_run:
        say(f"  reference      {report.reference}")
    if report.was_due:
        say(_due_again(report.account_customer_id))
    if is_dry_run:
        say(DRY_RUN)


def _changed(before: object, after: object) -> str:
    return shown(after) if before == after else f"{shown(before)} -> {shown(after)}"


def _due_again(customer_id: str) -> str:
    return (
        f"The points of {customer_id} were past their expiry, and no job had taken them yet: this is activity, so all "
        "of them are valid again."
    )


@click.command()
@click.argument("merchant", type=TEXT)
@click.argument("customer", metavar="FROM", type=TEXT)
@click.argument("into", type=TEXT)
@_said_options
@click.option("--apply", "is_applied", is_flag=True, help="Do it; without this the plan is shown.")
@json_option
def merge(merchant: str, customer: str, into: str, reason: str, actor: str, is_applied: bool, as_json: bool) -> None:
    """Move everything that customer FROM has at MERCHANT to customer INTO; shows the plan unless --apply is given.

    Orders move with their points, and reservations, redemptions and later orders of FROM are INTO's from then on. The
    entries of both stay as they are.
    """
    from loyalty_pipelines.db import merges

    try:
        wanted = Merge(merchant_id=merchant, customer_id=customer, into_customer_id=into, reason=reason, actor=actor)
    except ImpossibleRepairError as error:
        raise click.UsageError(str(error)) from error
    with database(as_json=as_json) as engine:
        report = _run(engine, lambda conn: merges.merge_accounts(conn, wanted), is_kept=is_applied)
    if as_json:
        print_json({**asdict(report), "applied": is_applied})
    else:
        _print_merge(report, is_applied=is_applied)


def _print_merge(report: MergeReport, *, is_applied: bool) -> None:
    merchant, source, target = report.merge.merchant_id, report.merge.customer_id, report.merge.into_customer_id
    if report.is_repeated:
        say(f"Customer {source} of {merchant} is merged into {target} already: nothing was written.")
        return
    say(f"{'Merged' if is_applied else 'Plan: merge'} customer {source} of {merchant} into {target}")
    print_table(
        ("customer", "balance", "held", "stamps", "last activity", "expires"),
        [
            (
                now.customer_id,
                _changed(was.balance, now.balance),
                _changed(was.held, now.held),
                _changed(was.stamp_count, now.stamp_count),
                _changed(was.last_activity_at, now.last_activity_at),
                _changed(was.expires_at, now.expires_at),
            )
            for was, now in zip(report.before, report.after, strict=True)
        ],
        numbers=("balance", "held", "stamps"),
    )
    say(
        f"{counted(report.orders, 'order')} with {report.points_of_orders:,} points, {report.points_besides:+,} points "
        f"and {report.stamps_besides:+,} stamps besides orders, {counted(report.redemptions, 'redemption')}: "
        f"{report.entries:,} ledger entries."
    )
    if report.is_into_new:
        known = "" if report.is_into_listed else ", and the shop lists no such customer: is the id right?"
        say(f"Customer {target} had no account yet{known or '.'}")
    if any(was.is_due for was in report.before) and not report.after[1].is_due:
        say(_due_again(" and ".join(was.customer_id for was in report.before if was.is_due)))
    if not is_applied:
        say("It was a plan: nothing was written. --apply does it.")
