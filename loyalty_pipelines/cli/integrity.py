"""`loyalty integrity`: prove the ledger, see what is wrong, and put right what has one right answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, print_json, print_table, say, shown
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.cli.queue import NUMBER

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from loyalty_pipelines.domain.findings import Finding
    from loyalty_pipelines.domain.integrity import MerchantProof
    from loyalty_pipelines.domain.integrity_repairs import Repair, RepairPlan

merchant_option = click.option("--merchant", type=TEXT, help="Only this merchant.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most."
)


@click.group()
def integrity() -> None:
    """Prove that balances, entries, orders and dates are right, and repair what drifted."""


@integrity.command()
@click.option("--full", is_flag=True, help="Compare everything, not only what was written since the last proof.")
@merchant_option
@json_option
def check(full: bool, merchant: str | None, as_json: bool) -> None:
    """Prove all merchants, or one. Exit status 1: something is wrong, or a merchant could not be proved."""
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.integrity_run import prove

    with database(as_json=as_json) as engine:
        with reading(engine) as conn:
            require_ready(conn, is_mapping_needed=False)
            _require_known(conn, merchant)
        done = list(prove(engine, None if merchant is None else [merchant], is_full=full))
    if as_json:
        print_json({"merchants": done})
    else:
        _print_proof(done)
    if any(one.findings or one.failure for one in done):
        click.get_current_context().exit(1)


def _print_proof(done: Sequence["MerchantProof"]) -> None:
    wrong = [one for one in done if one.findings]
    if wrong:
        print_table(
            ("merchant", "class", "findings", "points too many", "too few", "at risk", "since"),
            [
                (
                    one.merchant_id,
                    found.class_name,
                    found.findings,
                    found.points_too_many,
                    found.points_too_few,
                    f"{shown(found.amount_at_risk)} {found.currency or ''}".strip(),
                    found.first_seen_at,
                )
                for one in wrong
                for found in one.findings
            ],
            numbers=("findings", "points too many", "too few", "at risk"),
        )
    accounts, entries = (sum(getattr(one, name) for one in done) for name in ("accounts", "entries"))
    in_full = sum(one.is_full for one in done)
    say(
        f"{counted(len(done), 'merchant')} proved ({in_full:,} in full): {counted(accounts, 'account')} with entries, "
        f"{entries:,} entries, {counted(sum(one.open_findings for one in done), 'open finding')}."
    )
    for one in done:
        if one.failure:
            click.echo(f"Error: merchant {one.merchant_id} could not be proved: {one.failure}", err=True)
    if wrong:
        say("'loyalty integrity findings' shows them; docs/runbooks/integrity.md says what each class means.")


@integrity.command("findings")
@merchant_option
@click.option("--class", "class_name", type=TEXT, help="Only findings of this class.")
@click.option("--all", "is_all", is_flag=True, help="Closed and accepted findings, too.")
@click.option("--number", type=NUMBER, help="One finding, with its evidence.")
@limit_option
@json_option
def findings_(
    merchant: str | None, class_name: str | None, is_all: bool, number: int | None, limit: int, as_json: bool
) -> None:
    """List what is wrong, the finding with most points first."""
    from loyalty_pipelines.db import findings as db
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.findings import NoSuchFindingError
    from loyalty_pipelines.domain.integrity import SUBJECT, require_class

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        _require_known(conn, merchant)
        found = db.findings(
            conn,
            subject=SUBJECT,
            merchant_id=merchant,
            classes=None if class_name is None else [require_class(class_name)],
            number=number,
            is_closed_too=is_all or number is not None,
            limit=limit + 1,
        )
    if number is not None and not found:
        raise NoSuchFindingError(number)
    if as_json:
        print_json({"findings": found[:limit], "is_more": len(found) > limit})
    elif number is not None:
        _print_finding(found[0])
    else:
        _print_findings(found[:limit], is_more=len(found) > limit)


def _print_findings(found: Sequence["Finding"], *, is_more: bool) -> None:
    if not found:
        say("No findings.")
        return
    print_table(
        ("number", "merchant", "class", "object", "points", "at risk", "since", "seen", "closed", "accepted"),
        [
            (
                str(one.finding_id),
                one.merchant_id,
                one.class_name,
                f"{one.object_type} {one.object_id}",
                one.points_difference,
                f"{shown(one.amount_at_risk)} {one.currency or ''}".strip(),
                one.first_seen_at,
                one.times_seen,
                one.closed_at,
                f"{shown(one.accepted_at)} by {one.accepted_by}" if one.accepted_at else None,
            )
            for one in found
        ],
        numbers=("number", "points", "at risk", "seen"),
    )
    if is_more:
        say("There are more; --limit shows them.")


def _print_finding(one: "Finding") -> None:
    say(f"Finding {one.finding_id}: {one.class_name} of {one.object_type} {one.object_id} at {one.merchant_id}")
    for name, value in (
        ("severity", one.severity),
        ("points", f"{one.points_difference:+,}"),
        ("at risk", f"{shown(one.amount_at_risk)} {one.currency or ''}".strip()),
        ("since", one.first_seen_at),
        ("last seen", f"{shown(one.last_seen_at)}, {counted(one.times_seen, 'time')}"),
        ("closed", one.closed_at),
        ("accepted", f"by {one.accepted_by}: {one.accepted_because}" if one.accepted_at else None),
        ("run", one.run_id),
        *((f"  {name}", value) for name, value in one.evidence.items()),
    ):
        if value is not None:
            say(f"  {name:<26}{shown(value)}")


@integrity.command()
@click.option("--plan", "is_plan", is_flag=True, help="Show what would be changed and write nothing (the default).")
@click.option("--apply", "is_applied", is_flag=True, help="Set the columns to what the ledger says.")
@click.option("--undo", "number", type=NUMBER, metavar="REPAIR", help="Take back what a repair changed.")
@click.option("--trust-entries", is_flag=True, help="Also accounts whose newest, unsealed entries were written on a "
              "drifted balance: you have looked at them, and their points are right.")  # fmt: skip
@merchant_option
@click.option("--reason", type=TEXT, help="Why; kept with the repair. Needed to apply.")
@click.option("--actor", type=TEXT, help="Who decided it (you).")
@json_option
def repair(
    is_plan: bool,
    is_applied: bool,
    number: int | None,
    trust_entries: bool,
    merchant: str | None,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Set columns of accounts that drifted from an intact ledger to what the ledger says.

    Only that: entries are never changed, and an account whose entries don't continue each other is left to a person.
    Applying looks again under the account's lock. Exit status 1: something was not repaired.
    """
    if [is_plan, is_applied, number is not None].count(True) > 1:
        raise click.UsageError("Name one of --plan, --apply and --undo REPAIR.")
    if is_applied and reason is None:
        raise click.UsageError("--apply needs --reason TEXT: it is kept with the repair.")
    who = actor or current_user()
    with database(as_json=as_json) as engine:
        if number is not None:
            _undo(engine, number, who, as_json=as_json)
            return
        plans = _plans(engine, merchant, is_trusting=trust_entries)
        if is_applied and reason is not None:
            plans = _apply(engine, [plan for plan, _ in plans], reason, who)
    if as_json:
        print_json({"repairs": [{"plan": plan, "repair_id": repair_id} for plan, repair_id in plans]})
    else:
        _print_plans(plans, is_applied=is_applied)
    if any(plan.refusal for plan, _ in plans):
        click.get_current_context().exit(1)


def _plans(engine: "Engine", merchant: str | None, *, is_trusting: bool) -> Sequence[tuple["RepairPlan", int | None]]:
    from loyalty_pipelines.db import integrity_repairs
    from loyalty_pipelines.db.engine import reading

    with reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        _require_known(conn, merchant)
        found = integrity_repairs.plans(conn, merchant_id=merchant, is_trusting=is_trusting)
    return [(plan, None) for plan in found]


def _apply(
    engine: "Engine", plans: Sequence["RepairPlan"], reason: str, actor: str
) -> Sequence[tuple["RepairPlan", int | None]]:
    from loyalty_pipelines.db.integrity_run import apply_repairs

    return apply_repairs(engine, plans, reason=reason, actor=actor)


def _undo(engine: "Engine", number: int, actor: str, *, as_json: bool) -> None:
    from loyalty_pipelines.db.integrity_run import undo_repair

    with engine.connect() as conn:
        require_ready(conn, is_mapping_needed=False)
    undone = undo_repair(engine, number, actor=actor)
    if as_json:
        print_json({"undone": undone})
    else:
        left = f" Left as it is by now: {', '.join(undone.columns_left)}." if undone.columns_left else ""
        what = f"account {undone.account_id} at {undone.merchant_id}"
        say(f"Repair {number} of {what} is undone, and was proved again.{left}")


def _print_plans(plans: Sequence[tuple["RepairPlan", int | None]], *, is_applied: bool) -> None:
    if not plans:
        say("Nothing to repair: no open finding is of a class that an intact ledger settles.")
        return
    print_table(
        ("merchant", "account", "customer", "change", "repair" if is_applied else "what --apply does"),
        [
            (
                plan.merchant_id,
                str(plan.account_id),
                plan.customer_id,
                ", ".join(f"{name} {before:,} -> {after:,}" for name, (before, after) in plan.changes.items()),
                f"not repaired: {plan.refusal}" if plan.refusal else (str(number) if is_applied else "repairs it"),
            )
            for plan, number in plans
        ],
        numbers=("account",),
    )
    if not is_applied:
        say("It was a plan: nothing was written. --apply --reason TEXT does it.")


@integrity.command()
@merchant_option
@limit_option
@json_option
def repairs(merchant: str | None, limit: int, as_json: bool) -> None:
    """List the newest repairs."""
    from loyalty_pipelines.db import integrity_repairs
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        _require_known(conn, merchant)
        made = integrity_repairs.repairs(conn, merchant_id=merchant, limit=limit)
    if as_json:
        print_json({"repairs": made})
        return
    if not made:
        say("No repairs.")
        return
    print_table(
        ("repair", "merchant", "account", "change", "reason", "by", "at", "undone"),
        [
            (
                str(one.repair_id),
                one.merchant_id,
                str(one.account_id),
                ", ".join(
                    f"{name} {one.before[name]:,} -> {one.after[name]:,}"
                    for name in one.before
                    if one.before[name] != one.after[name]
                ),
                one.reason,
                one.applied_by,
                one.applied_at,
                _undone(one),
            )
            for one in made
        ],
        numbers=("repair", "account"),
    )


def _undone(one: "Repair") -> str | None:
    if one.undone_at is None:
        return None
    left = f", but for {', '.join(one.columns_left)}" if one.columns_left else ""
    return f"{shown(one.undone_at)} by {one.undone_by}{left}"


@integrity.command()
@click.argument("number", type=NUMBER, required=False)
@click.option("--class", "class_name", type=TEXT, help="All open findings of this class, of one --merchant.")
@click.option("--merchant", type=TEXT, help="Whose findings of the --class.")
@click.option("--reason", type=TEXT, required=True, help="Why it may stay as it is; kept with the finding.")
@click.option("--actor", type=TEXT, help="Who decided it (you).")
def accept(number: int | None, class_name: str | None, merchant: str | None, reason: str, actor: str | None) -> None:
    """Leave what finding NUMBER says as it is: it turns no check red, as long as it stays the same.

    For what can't be put right, such as an entry that history keeps or that is gone. A changed history is sealed as it
    is. With --class and --merchant instead of NUMBER: all of them. Exit status 1: some were not accepted.
    """
    from loyalty_pipelines.db import integrity_repairs

    who = actor or current_user()
    if number is not None and class_name is None and merchant is None:
        with database() as engine, engine.begin() as conn:
            require_ready(conn, is_mapping_needed=False)
            found = integrity_repairs.accept(conn, number, reason=reason, actor=who)
        what = f"{found.class_name} of {found.object_type} {found.object_id} at {found.merchant_id}"
        say(f"Finding {number}, {what}, is accepted.")
    elif number is None and class_name is not None and merchant is not None:
        _accept_all(class_name, merchant, reason, who)
    else:
        raise click.UsageError("Name the finding's NUMBER, or --class and --merchant for many.")


def _accept_all(class_name: str, merchant: str, reason: str, actor: str) -> None:
    from loyalty_pipelines.db import integrity_repairs
    from loyalty_pipelines.domain.integrity import require_class

    with database() as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        _require_known(conn, merchant)
        accepted, refused = integrity_repairs.accept_all(
            conn, merchant_id=merchant, class_name=require_class(class_name), reason=reason, actor=actor
        )
    if accepted:
        are = "is" if accepted == 1 else "are"
        say(f"{counted(accepted, 'finding')} of class {class_name} at {merchant} {are} accepted.")
    elif not refused:
        say(f"There is no open finding of class {class_name} at {merchant}.")
    if refused:
        are = "is" if refused == 1 else "are"
        say(f"{refused:,} can be put right, and {are} not accepted: see 'loyalty integrity repair'.")
        click.get_current_context().exit(1)


def _require_known(conn: "Connection", merchant: str | None) -> None:
    """Raise unless the merchant is known, if only by its findings or repairs: of a typo there is nothing wrong."""
    from loyalty_pipelines.db import integrity_repairs, programs

    if merchant is not None and not integrity_repairs.has_records(conn, merchant):
        programs.require_merchant(conn, merchant)
