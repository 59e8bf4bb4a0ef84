"""`loyalty expire` and `loyalty expiry`: points that go, what will go, and giving back what should not have gone."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import INSTANT, TEXT
from loyalty_pipelines.cli.output import counted, print_json, print_table, printable, say, shown
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.cli.progress import progress_bar
from loyalty_pipelines.domain.expiry import (
    DEFAULT_CHUNK_SIZE,
    ExpiryOptions,
    ForecastDay,
    Limits,
    MerchantExpiry,
    MerchantTerms,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from loyalty_pipelines.domain.expiry_checks import PastRun
    from loyalty_pipelines.domain.expiry_undo import UndoReport

DRY_RUN = "It was a dry run: nothing was written."
COUNTERS = ("accounts_rescheduled", "accounts_warned", "points_warned", "accounts_moved", "accounts_expired")
COUNTERS += ("points_expired", "accounts_locked")
FORECAST_COUNTERS = ("accounts_warned", "points_warned", "accounts_expired", "points_expired")


@click.command()
@click.argument("merchant", type=TEXT, required=False)
@click.option("--all", "is_all", is_flag=True, help="All merchants, as every night.")
@click.option("--dry-run", is_flag=True, help="Count who would be warned and what would go; write nothing.")
@click.option("--as-of", type=INSTANT, help="Decide as if it were this instant, with a zone (now).")
@click.option("--accept", type=click.IntRange(min=0), metavar="N",
              help="Let so many accounts of a stopped MERCHANT expire, as its plan has shown.")  # fmt: skip
@click.option("--chunk-size", type=click.IntRange(1, 10_000), default=DEFAULT_CHUNK_SIZE, show_default=True,
              help="Accounts in one transaction.")  # fmt: skip
@click.option("--without-warning", is_flag=True,
              help="Also take points whose customer was not told; nobody_expired_unwarned shows it.")  # fmt: skip
@json_option
def expire(
    merchant: str | None,
    is_all: bool,
    dry_run: bool,
    as_of: datetime | None,
    accept: int | None,
    chunk_size: int,
    without_warning: bool,
    as_json: bool,
) -> None:
    """Warn customers of MERCHANT whose points are about to expire, and take what is due, now.

    Running it twice, or beside the nightly run, warns and takes nothing twice. Exit status 1: a merchant failed or is
    stopped because far more is due than usual, or PostgreSQL refused an account.
    """
    from loyalty_pipelines.db.expiry_run import expire_merchants

    if (merchant is not None) == is_all:
        raise click.UsageError("Name MERCHANT, or --all.")
    if accept is not None and is_all:
        raise click.UsageError("--accept is the number of one merchant's plan: name MERCHANT with it.")
    options = ExpiryOptions(
        as_of=as_of,
        is_dry_run=dry_run,
        chunk_size=chunk_size,
        is_warning_required=not without_warning,
        limits=Limits(accepted_accounts=accept),
    )
    with database(as_json=as_json) as engine:
        found = _look(engine, merchant)
        expiring = expire_merchants(engine, None if merchant is None else [merchant], options=options,
                                    actor=current_user())  # fmt: skip
        with progress_bar("expiring", len(found), "merchants", as_json=as_json) as advance:
            done = []
            for one in expiring:
                done.append(one)
                advance(1)
    done.sort(key=lambda one: one.merchant_id)
    if as_json:
        _print_document(done, is_dry_run=dry_run)
    else:
        _print_merchants(done, is_dry_run=dry_run)
        if merchant is not None:
            _explain_nothing(merchant, found)
        _print_problems(done)
    if any(one.failure or one.is_stopped or one.refused for one in done):
        click.get_current_context().exit(1)


@click.group()
def expiry() -> None:
    """Look ahead at what will expire and back at what did, and give it back."""


@expiry.command()
@click.argument("merchant", type=TEXT, required=False)
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="How far to look.")
@click.option("--customers", "by_customer", is_flag=True, help="Name the customers of MERCHANT.")
@json_option
def forecast(merchant: str | None, days: int, by_customer: bool, as_json: bool) -> None:
    """Show per day who will be warned and what will go, if nobody is active until then.

    Of MERCHANT, or the sums of all; each day on the merchant's own calendar.
    """
    from loyalty_pipelines.db import expiry as db
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.merchants import merchant_ids
    from loyalty_pipelines.platform_time import next_expiry_run

    if by_customer and merchant is None:
        raise click.UsageError("--customers names the customers of one merchant: name MERCHANT, too.")
    with database(as_json=as_json) as engine:
        found = _look(engine, merchant)
        with reading(engine, is_one_snapshot=True) as conn:
            next_run_at = next_expiry_run(db.now(conn))
            wanted = merchant_ids(conn) if merchant is None else [merchant]
            coming = db.forecast(conn, wanted, next_run_at=next_run_at, days=days, is_by_customer=by_customer)
    by_day = _by_day(coming)
    if as_json:
        name = "customers" if by_customer else "merchants"
        print_json({"next_run_at": next_run_at, "days": list(by_day.values()), name: coming})
        return
    columns = ("day", "warned", "points warned", "expire", "points")
    if by_customer and coming:
        rows = [(one.day_on, printable(one.customer_id or ""), *_points_of(one)) for one in coming]
        print_table(("day", "customer", "warned of", "points that go"), rows, numbers=("warned of", "points that go"))
    elif by_day:
        print_table(columns, [tuple(sums.values()) for sums in by_day.values()], numbers=columns[1:])
    else:
        say(f"Nobody will be warned and nothing will go in the next {counted(days, 'day')}.")
    say(f"The next nightly run is at {shown(next_run_at)}.")
    if merchant is not None:
        _explain_nothing(merchant, found)
    changed = [one.merchant_id for one in found if not one.is_scheduled]
    if changed:
        say(
            f"The next run computes all expiry dates of {_listed(changed)} anew, because programme or time zone are "
            "new there; until then this is by the dates as they are."
        )


@expiry.command()
@click.argument("merchant", type=TEXT, required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many of the newest.")
@json_option
def runs(merchant: str | None, limit: int, as_json: bool) -> None:
    """List the newest runs with what they did, of MERCHANT or the sums of all."""
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.expiry_checks import past_runs

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        if merchant is not None:
            programs.require_merchant(conn, merchant)
        found = past_runs(conn, merchant, limit=limit)
    if as_json:
        print_json(found)
        return
    if not found:
        say("No runs yet.")
        return
    columns = ("run", "started", "by", "as of", "merchants", "warned", "expired", "points", "given back", "state")
    print_table(columns, [_run_row(one) for one in found], numbers=columns[4:9])


@expiry.command()
@click.option("--run", "run_id", type=TEXT, required=True, metavar="RUN_ID", help="The run that took the points.")
@click.option("--merchant", type=TEXT, help="Only what it took at this merchant.")
@click.option("--customer", type=TEXT, help="Only what it took from this customer.")
@click.option("--mail", is_flag=True, help="Tell the customers whose points have a new date.")
@click.option("--reason", type=TEXT, default="by hand", show_default=True, help="Why; the ledger keeps the words.")
@click.option("--actor", type=TEXT, help="Who decided it (you).")
@click.option("--dry-run", is_flag=True, help="Count what would be given back; write nothing.")
@json_option
def undo(
    run_id: str,
    merchant: str | None,
    customer: str | None,
    mail: bool,
    reason: str,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give back what an expiry run took, once: entries of kind "adjusted", and a date that leaves time for a warning.

    Exit status 1: a merchant failed; all others are done, and repeating it goes on.
    """
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.expiry_undo_run import undo_run
    from loyalty_pipelines.domain.expiry_undo import Undo
    from loyalty_pipelines.domain.repairs import ImpossibleRepairError

    try:
        wanted = Undo(
            run_id=run_id,
            merchant_id=merchant,
            customer_id=customer,
            is_mailed=mail,
            reason=reason,
            actor=actor or current_user(),
        )
    except ImpossibleRepairError as error:
        raise click.UsageError(str(error)) from error
    with database(as_json=as_json) as engine:
        with reading(engine) as conn:
            require_ready(conn)
        report = undo_run(engine, wanted, is_dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "merchants": report.merchants, "failures": report.failures})
    else:
        _print_undone(report, is_mailed=mail, is_dry_run=dry_run)
    if report.failures:
        click.get_current_context().exit(1)


def _look(engine: "Engine", merchant: str | None) -> list[MerchantTerms]:
    """Return what is known of the merchants with a programme (None: of all); raise when there is no such merchant."""
    from loyalty_pipelines.db import expiry as db
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.merchants import merchant_ids

    with reading(engine) as conn:
        require_ready(conn)
        if merchant is not None:
            programs.require_merchant(conn, merchant)
        return db.survey(conn, merchant_ids(conn) if merchant is None else [merchant], as_of=db.now(conn))


def _is_shown(one: MerchantExpiry) -> bool:
    return any(getattr(one, name) for name in COUNTERS) or bool(
        one.plan and (one.plan.accounts_due or one.plan.accounts_waiting)
    )


def _print_merchants(done: Sequence[MerchantExpiry], *, is_dry_run: bool) -> None:
    columns = ("merchant", "warned", "points warned", "dates moved", "due", "waiting", "expired", "points", "locked")
    columns += ("against forecast",)
    listed = [one for one in done if _is_shown(one)]
    if listed:
        print_table(columns, [_row(one) for one in listed], numbers=columns[1:])
    total = {name: sum(getattr(one, name) for one in done) for name in COUNTERS}
    if total["accounts_rescheduled"]:
        say(
            f"Expiry dates of {counted(total['accounts_rescheduled'], 'account')} were computed anew, because "
            "programme or time zone have changed."
        )
    if total["accounts_warned"] or total["accounts_expired"]:
        text = (
            f"{counted(total['accounts_warned'], 'account')} warned of {total['points_warned']:,} points; "
            f"{counted(total['accounts_expired'], 'account')} with {total['points_expired']:,} points expired."
        )
    else:
        text = "Nobody was to be warned, and nothing expired."
    say(f"{text} {DRY_RUN}" if is_dry_run else text)
    if waiting := sum(one.plan.accounts_waiting for one in done if one.plan):
        say(
            f"{counted(waiting, 'due account')} kept: the warning has not been delivered yet, or an order has not been "
            "looked at."
        )
    if locked := total["accounts_locked"]:
        say(f"{counted(locked, 'due account')} locked all the time; the next run takes them.")
    for run_id in sorted({one.run_id for one in done if one.run_id and one.accounts_expired}):
        say(f"Run {run_id}: 'loyalty expiry undo --run {run_id} --dry-run' shows what giving it back would do.")


def _row(one: MerchantExpiry) -> Sequence[object]:
    return (
        one.merchant_id,
        one.accounts_warned,
        one.points_warned,
        one.accounts_moved,
        one.plan.accounts_due if one.plan else 0,
        one.plan.accounts_waiting if one.plan else 0,
        one.accounts_expired,
        one.points_expired,
        one.accounts_locked,
        f"{one.accounts_expired - one.forecast.accounts:+,}" if one.forecast else None,
    )


def _explain_nothing(merchant: str, found: Sequence[MerchantTerms]) -> None:
    """Say why points of the merchant never expire, where it is so."""
    if not found:
        say(
            f"{merchant} has no programme; give it one with 'loyalty programs set {quote(merchant)} "
            "--points-per-unit 1 --expiration-days 365'."
        )
    elif not found[0].is_program_active:
        say(f"The programme of {merchant} is off: nothing is warned of or expires until it is on again.")
    elif not found[0].is_expiring:
        say(
            f"Points of {merchant} never expire: its programme has no expiration days. 'loyalty programs set "
            f"{quote(merchant)} --expiration-days 365' sets them."
        )


def _print_problems(done: Sequence[MerchantExpiry]) -> None:
    for one in done:
        for warning in one.warnings:
            click.echo(f"Warning: {one.merchant_id}: {warning}", err=True)
    for one in done:
        if one.is_stopped and one.plan:
            click.echo(f"Stopped: merchant {one.merchant_id}: {one.plan.reason(one.merchant_id)}", err=True)
        for customer_id, reason in one.refused.items():
            text = f"PostgreSQL refused to change the account of customer {customer_id}: {reason}"
            click.echo(printable(f"Error: merchant {one.merchant_id}: {text}"), err=True)
        if one.failure:
            click.echo(f"Error: merchant {one.merchant_id} failed: {one.failure}", err=True)


def _print_document(done: Sequence[MerchantExpiry], *, is_dry_run: bool) -> None:
    print_json(
        {
            "dry_run": is_dry_run,
            "merchants": done,
            "stopped": {
                one.merchant_id: one.plan.reason(one.merchant_id) for one in done if one.is_stopped and one.plan
            },
            "failures": {one.merchant_id: one.failure for one in done if one.failure},
            "total": {name: sum(getattr(one, name) for one in done) for name in COUNTERS},
        }
    )


def _by_day(coming: Iterable[ForecastDay]) -> dict[date, dict[str, Any]]:
    """Return the sums over the merchants, by day."""
    found: dict[date, dict[str, Any]] = {}
    for one in coming:
        sums = found.setdefault(one.day_on, {"day_on": one.day_on, **dict.fromkeys(FORECAST_COUNTERS, 0)})
        for name in FORECAST_COUNTERS:
            sums[name] += getattr(one, name)
    return found


def _points_of(one: ForecastDay) -> tuple[int | None, int | None]:
    """Return the points of which a customer is warned on a day, and those that go; None: not on this day."""
    return (one.points_warned if one.accounts_warned else None, one.points_expired if one.accounts_expired else None)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _run_row(one: "PastRun") -> Sequence[object]:
    return (
        one.run_id,
        one.started_at,
        one.actor,
        one.as_of,
        one.merchants,
        one.accounts_warned,
        one.accounts_expired,
        one.points_expired,
        one.points_undone,
        _run_state(one),
    )


def _run_state(one: "PastRun") -> str:
    problems = [(one.merchants_stopped, "stopped"), (one.merchants_unfinished, "not finished")]
    said = [f"{number:,} {word}" if one.merchant_id is None else word for number, word in problems if number]
    return ", ".join(said) or "finished"


def _print_undone(report: "UndoReport", *, is_mailed: bool, is_dry_run: bool) -> None:
    columns = ("merchant", "accounts", "points", "given back before")
    if report.merchants:
        rows = [(one.merchant_id, one.accounts, one.points, one.accounts_before) for one in report.merchants]
        print_table(columns, rows, numbers=columns[1:])
    points, accounts = report.total("points"), report.total("accounts")
    if is_dry_run:
        say(f"{points:,} points of {counted(accounts, 'account')} would be given back. {DRY_RUN}")
    elif accounts:
        say(
            f"Gave back {points:,} points to {counted(accounts, 'account')}. "
            + (
                "Customers get a mail with the new date, but for those who have a later one by now, and none where the "
                "programme is off."
                if is_mailed
                else "A warning comes before they expire again."
            )
        )
    else:
        say("All of it was given back before: nothing was written.")
    for name, text in sorted(report.failures.items()):
        click.echo(f"Error: merchant {name} failed: {text}", err=True)
