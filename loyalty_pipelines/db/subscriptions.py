"""The statements that compare payments, orders, subscriptions and points; `subscriptions_run` says in which order.

All of a check happens in one transaction of one snapshot. The classes read `source_orders`, `source_payments` and
`source_subscriptions`: everything, or what belongs to what changed.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, CursorResult, TextClause

from loyalty_pipelines.db import findings
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.source_mapping import CaptureMode, SourceMapping
from loyalty_pipelines.domain.subscriptions import CLASSES, JOB, RELATIONS, SUBJECT, MismatchClass

LOCK = load("subscriptions/lock")
UNLOCK = load("subscriptions/unlock")
NOW = load("subscriptions/now")
MERCHANTS = load("subscriptions/merchants")
MAKE_ROOM = load("subscriptions/make_room")
CREATE_MERCHANTS = load("subscriptions/create_merchants")
CREATE_SUSPECTED = load("subscriptions/create_suspected")
SOURCES = ("orders", "payments", "subscriptions")
VIEW_ALL = [load(f"subscriptions/view_all_{name}") for name in SOURCES]
COPY = [load(f"subscriptions/copy_{name}") for name in SOURCES]
DROP_VIEWS = load("subscriptions/drop_views")
POLL_CURSOR = load("subscriptions/poll_cursor")
POLL = load("subscriptions/poll")
MOVE_POLL_CURSOR = load("subscriptions/move_poll_cursor")
CHANGED = load("subscriptions/changed")
CHOSEN_OBJECTS = load("subscriptions/chosen_objects")
TOUCHED = [
    load(f"subscriptions/{name}")
    for name in (
        "changed_payments",
        "changed_orders",
        "changed_subscriptions",
        "touched_customers",
        "customer_payments",
        "customer_orders",
        "touched_orders",
        "touched_subscriptions",
        "touched_payments",
        "named_subscriptions",
        "touched_source_orders",
    )
]
ANALYZE_SOURCES = load("subscriptions/analyze_sources")
LOOKED_AT = load("subscriptions/looked_at")
PREPARE_ROWS = [
    load(f"subscriptions/{name}")
    for name in (
        "create_plans",
        "create_subscriptions",
        "create_payments",
        "analyze_rows",
        "drop_second_plans",
    )
]
CREATE_SECOND_SUBSCRIPTIONS = load("subscriptions/create_second_subscriptions")
DROP_SECOND_LINKS = load("subscriptions/drop_second_links")
FOLD_REFUNDS = load("subscriptions/fold_refunds_of_checked")
LINK_BY_PLAN = load("subscriptions/link_by_plan")
CREATE_REPEATED_PAYMENTS = load("subscriptions/create_repeated_payments")
FOLD_REPEATED_REFUNDS = load("subscriptions/fold_refunds_of_repeated")
# Tables of what may be wrong, by their names; classes read them.
CREATE_FACTS = {
    name: load(f"subscriptions/create_{name}")
    for name in (
        "odd_payments",
        "uncovered_subscriptions",
        "side_by_side",
        "watched_payments",
        "paid_steps",
        "several_subscriptions",
        "unawarded_orders",
        "unpaid_orders",
        "odd_orders",
    )
}
ANALYZE_FACTS = load("subscriptions/analyze_facts")
FIND = {one.code: [load(f"subscriptions/{name}") for name in one.files] for one in CLASSES}
NOT_CHECKED = load("subscriptions/not_checked")
CLASS_FAILED = load("subscriptions/class_failed")
FOUND = load("subscriptions/found")
FORGET_LOOKS = load("subscriptions/forget_looks")
PLAN_LOOKS = load("subscriptions/plan_looks")
EMPTY_INBOX = load("subscriptions/empty_inbox")
COUNTS = load("subscriptions/counts")


def lock(conn: Connection) -> None:
    """Wait until no other check is at work, and keep others waiting until `unlock`, for the session."""
    conn.execute(LOCK)


def unlock(conn: Connection) -> None:
    """Let the next check begin."""
    conn.execute(UNLOCK)


def now(conn: Connection) -> datetime:
    """Return the instant of the transaction."""
    return conn.execute(NOW).scalar_one()


def merchants(conn: Connection, merchant_ids: Sequence[str] | None) -> Mapping[str, bool]:
    """Return those of the merchants (or all) that there are, and whether looking at what changed is enough.

    It is not where nothing was ever compared in full, or the last check failed.
    """
    values = {
        "merchant_ids": None if merchant_ids is None else list(merchant_ids),
        "subject": SUBJECT,
        "job": JOB,
    }
    return {row.merchant_id: row.is_marked for row in conn.execute(MERCHANTS, values)}


def poll(conn: Connection, mapping: SourceMapping) -> None:
    """In poll mode, note what the shop changed since the last time; with triggers, it is noted already."""
    if mapping.capture is not CaptureMode.POLL:
        return
    since = conn.execute(POLL_CURSOR).scalar_one() - timedelta(seconds=mapping.poll_overlap_seconds)
    conn.execute(POLL, {"since": since})
    conn.execute(MOVE_POLL_CURSOR)


def prepare(conn: Connection, merchant_ids: Sequence[str]) -> None:
    """Make the temporary tables that every check needs."""
    conn.execute(MAKE_ROOM)
    conn.execute(CREATE_MERCHANTS, {"merchant_ids": list(merchant_ids)})
    conn.execute(CREATE_SUSPECTED)
    findings.create_found(conn)


def read_everything(conn: Connection, *, is_every_merchant: bool) -> None:
    """Let the classes read all rows: of everybody where they are, of some merchants in copies."""
    for statement in VIEW_ALL if is_every_merchant else COPY:
        conn.execute(statement)
    if not is_every_merchant:
        conn.execute(ANALYZE_SOURCES)


def let_go(conn: Connection, *, is_every_merchant: bool) -> None:
    """Remove what outlives the transaction."""
    if is_every_merchant:
        conn.execute(DROP_VIEWS)


def read_what_changed(conn: Connection, *, as_of: datetime) -> None:
    """Let the classes read the rows of those customers, orders and subscriptions that something changed of."""
    conn.execute(CHANGED, {"as_of": as_of, "subject": SUBJECT})
    _read_touched(conn)
    conn.execute(LOOKED_AT)


def read_objects(conn: Connection, objects: Sequence[tuple[str, str, str]]) -> None:
    """Let the classes read what belongs to these objects: merchant, relation (`payments` ...), id of each."""
    conn.execute(
        CHOSEN_OBJECTS,
        {
            "merchant_ids": [merchant_id for merchant_id, _, _ in objects],
            "relations": [relation for _, relation, _ in objects],
            "object_ids": [object_id for _, _, object_id in objects],
        },
    )
    _read_touched(conn)


def _read_touched(conn: Connection) -> None:
    for statement in TOUCHED:
        conn.execute(statement)
    conn.execute(ANALYZE_SOURCES)


def prepare_rows(conn: Connection, mapping: SourceMapping, *, as_of: datetime) -> Collection[str]:
    """Bring payments, subscriptions and plans together, before any class looks at them.

    Returns the names of the tables, among those that classes read, that came out empty.
    """
    values = {"as_of": as_of, "are_refunds_apart": are_refunds_apart(mapping)}
    for statement in PREPARE_ROWS:
        _execute(conn, statement, values)
    if conn.execute(CREATE_SECOND_SUBSCRIPTIONS).rowcount:
        conn.execute(DROP_SECOND_LINKS)
    rows = {"repeated_payments": conn.execute(CREATE_REPEATED_PAYMENTS).rowcount}
    if values["are_refunds_apart"]:
        conn.execute(FOLD_REFUNDS)
        conn.execute(FOLD_REPEATED_REFUNDS)
    conn.execute(LINK_BY_PLAN)
    for name, statement in CREATE_FACTS.items():
        rows[name] = _execute(conn, statement, values).rowcount
        if name == "paid_steps":
            conn.execute(ANALYZE_FACTS)
    return {name for name, number in rows.items() if number == 0}


def are_refunds_apart(mapping: SourceMapping) -> bool:
    """Whether refunds are a relation of their own that the payments' rows know nothing of."""
    return (
        mapping.refunds is not None
        and mapping.payments is not None
        and "refunded_amount" not in mapping.payments.columns
    )


def find(
    conn: Connection, one: MismatchClass, mapping: SourceMapping, *, as_of: datetime, empty: Collection[str]
) -> None:
    """Look for one class, unless all that it reads is `empty`."""
    if one.reads and set(one.reads) <= set(empty):
        return
    values = {"as_of": as_of, "has_customers": mapping.customers is not None}
    for statement in FIND[one.code]:
        _execute(conn, statement, values)


def missing_relations(mapping: SourceMapping) -> Mapping[str, list[str]]:
    """Return the relations that the mapping lacks, with the classes that can't be looked for without them."""
    missing = {name: [one.code for one in CLASSES if name in one.needs] for name in RELATIONS}
    return {name: classes for name, classes in missing.items() if name not in mapping.mapped_relations and classes}


def note_missing(conn: Connection, missing: Mapping[str, list[str]]) -> None:
    """Find that these relations are missing."""
    classes = [json.dumps(classes) for classes in missing.values()]
    conn.execute(NOT_CHECKED, {"relations": list(missing), "classes": classes})


def note_failed_class(conn: Connection, code: str, *, why: str) -> None:
    """Find that a class could not be looked for."""
    conn.execute(CLASS_FAILED, {"class": code, "why": why})


def record(
    conn: Connection,
    merchant_ids: Sequence[str] | None,
    *,
    closing: Sequence[str],
    warnings: Sequence[str],
    is_full: bool,
    as_of: datetime,
    run_id: str | None,
) -> None:
    """Keep what was found, close what is gone, and remember when to look again at what is not ripe yet."""
    conn.execute(FOUND, {"as_of": as_of, "is_scoped": not is_full})
    findings.record(
        conn,
        subject=SUBJECT,
        closing=closing,
        warnings=warnings,
        merchant_ids=merchant_ids,
        run_id=run_id,
        is_scoped=not is_full,
    )
    conn.execute(FORGET_LOOKS, {"as_of": as_of, "is_full": is_full})
    conn.execute(PLAN_LOOKS, {"as_of": as_of})
    conn.execute(EMPTY_INBOX)


def counts(conn: Connection) -> Mapping[str, tuple[int, int]]:
    """Return how many payments and subscriptions of each merchant were looked at."""
    return {row.merchant_id: (row.payments, row.subscriptions) for row in conn.execute(COUNTS)}


def _execute(conn: Connection, statement: TextClause, values: Mapping[str, Any]) -> CursorResult[Any]:
    return conn.execute(statement, {name: values[name] for name in statement._bindparams if name in values})
