"""Renders the capture triggers: what a write to the shop's tables puts into our inboxes.

Orders and refunds note orders in `loyalty.order_inbox`. Where payments or subscriptions are mapped, they and the
orders note themselves in `loyalty.subscription_inbox`, too: by triggers of their own, so that one inbox that is
locked or gone takes nothing from the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from loyalty_pipelines.db.sources_catalog import (
    FLOATS,
    INTEGERS,
    TIMESTAMPS,
    ColumnInfo,
    InstalledTrigger,
    RelationInfo,
    Relations,
    Rights,
)
from loyalty_pipelines.db.sources_expressions import ROW, as_text, default_value, is_wanted, literal, raw
from loyalty_pipelines.db.sources_text import Block, lines_of
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS
from loyalty_pipelines.domain.source_mapping import CaptureMode, MappedRelation, SourceMapping

EVENTS: dict[str, tuple[LiteralString, ...]] = {
    "orders": ("insert", "update"),
    "refunds": ("insert", "update", "delete"),
}
SUBSCRIPTION_EVENTS: dict[str, tuple[LiteralString, ...]] = {
    "orders": ("insert", "update"),
    "payments": ("insert", "update", "delete"),
    "subscriptions": ("insert", "update", "delete"),
}
TRANSITION_TABLES: dict[str, LiteralString] = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
}
NOTED: dict[str, LiteralString] = {"refunds": "orders"} | {
    name: name for name in ("orders", "payments", "subscriptions")
}
# What a row belongs to: when it belongs to it no longer, that has to be compared, too, and the row does not say so any more.
LINKS: dict[str, dict[str, LiteralString]] = {
    "orders": {"customer_id": "customers"},
    "payments": {"order_id": "orders", "subscription_id": "subscriptions", "customer_id": "customers"},
    "subscriptions": {"order_id": "orders", "customer_id": "customers"},
}
# Compared as they are; everything else as text. Types like json have no equality, and a collation may call
# two different words equal.
COMPARABLE_TYPES = INTEGERS | FLOATS | TIMESTAMPS | {"numeric", "money", "uuid", "bool"}


@dataclass(frozen=True, kw_only=True)
class Capture:
    """One trigger with its function: `relation` of the mapping, `event` on the shop's table.

    `is_subscription`: it fills the inbox of subscriptions, not that of orders.
    """

    relation: str
    event: LiteralString
    part: MappedRelation
    info: RelationInfo
    is_subscription: bool = False

    @property
    def subject(self) -> str:
        """The name's middle; orders and refunds have two triggers for each event, one for each inbox."""
        is_second = self.is_subscription and self.relation in EVENTS
        return f"subscription_{self.relation}" if is_second else self.relation

    @property
    def function(self) -> str:
        return f"capture_{self.subject}_{self.event}"

    @property
    def trigger(self) -> str:
        return f"loyalty_capture_{self.subject}_{self.event}"

    @property
    def place(self) -> tuple[str, str, str]:
        return self.info.schema_name, self.info.table_name, self.trigger

    @property
    def object_id(self) -> sql.Composable:
        """The key of what is noted: a refund notes its order."""
        is_itself = self.is_subscription and self.relation != "refunds"
        name = SOURCE_RELATIONS[self.relation].key[1] if is_itself else "order_id"
        return as_text(self.info.known(self.part.columns[name]))


def captures_of(mapping: SourceMapping, relations: Relations) -> list[Capture]:
    """Return the triggers that `mapping` asks for; none in poll mode.

    No trigger tells of a deleted order: deleting is not cancelling, and the points stay.
    """
    if mapping.capture is not CaptureMode.TRIGGER:
        return []
    has_subscriptions = any(mapping.relation(name) and name in relations for name in ("payments", "subscriptions"))
    wanted = []
    subscription_events = dict(SUBSCRIPTION_EVENTS) if has_subscriptions else {}
    if mapping.payments is not None and "refunded_amount" not in mapping.payments.columns:
        # What was given back is known from the refunds alone, then.
        subscription_events["refunds"] = EVENTS["refunds"]
    for is_subscription, events_of in ((False, EVENTS), (True, subscription_events)):
        for relation, events in events_of.items():
            part, info = mapping.relation(relation), relations.get(relation)
            if part is not None and info is not None:
                wanted.extend(
                    Capture(relation=relation, event=event, part=part, info=info, is_subscription=is_subscription)
                    for event in events
                )
    return wanted


def capture_statements(
    mapping: SourceMapping, relations: Relations, rights: Rights, installed: list[InstalledTrigger]
) -> Iterator[sql.Composable]:
    """Yield what installs the wanted triggers and removes all others."""
    captures = captures_of(mapping, relations)
    places = {capture.place for capture in captures}
    for trigger in installed:
        if (trigger.schema_name, trigger.table_name, trigger.trigger_name) not in places:
            yield sql.SQL("DROP TRIGGER {} ON {}").format(
                sql.Identifier(trigger.trigger_name), sql.Identifier(trigger.schema_name, trigger.table_name)
            )
    if not captures:
        return
    # The owner of a function needs CREATE on its schema only while it becomes the owner.
    borrows_role = not (rights.is_superuser or rights.is_capture_member)
    if borrows_role:
        yield sql.SQL("GRANT loyalty_capture TO CURRENT_USER")
    yield sql.SQL("GRANT CREATE ON SCHEMA loyalty_source TO loyalty_capture")
    for capture in captures:
        yield from function_statements(capture)
        yield trigger_statement(capture)
    yield sql.SQL("REVOKE CREATE ON SCHEMA loyalty_source FROM loyalty_capture")
    if borrows_role:
        yield sql.SQL("REVOKE loyalty_capture FROM CURRENT_USER")


def function_statements(capture: Capture) -> Iterator[sql.Composable]:
    """Yield the trigger function: it notes keys and nothing else, and it cannot fail the shop's statement.

    It runs as loyalty_capture, which may only insert into the inboxes. A lock on the inbox is waited for 200
    ms, then given up: the sweep, or the nightly check, finds what was not noted.
    """
    name = sql.Identifier("loyalty_source", capture.function)
    yield sql.SQL(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger\nLANGUAGE plpgsql SECURITY DEFINER\n"
        "SET search_path = pg_catalog, pg_temp\nSET lock_timeout = '200ms'\nAS {body}"
    ).format(name=name, body=Block(function_body(capture)))
    yield sql.SQL("ALTER FUNCTION {}() OWNER TO loyalty_capture").format(name)
    yield sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(name)


def function_body(capture: Capture) -> sql.Composable:
    # New rows are different rows already, and a bulk load of them need not be hashed or sorted.
    is_unique = capture.relation != "refunds" and capture.event == "insert"
    distinct = sql.SQL("" if is_unique else "DISTINCT ")
    if capture.is_subscription:
        insert = sql.SQL(
            "    INSERT INTO loyalty.subscription_inbox (relation, merchant_id, object_id)\n"
            "    SELECT {distinct}{relation}, c.merchant_id, c.object_id"
        ).format(distinct=distinct, relation=literal(NOTED[capture.relation]))
    else:
        insert = sql.SQL(
            "    INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source)\n"
            "    SELECT {distinct}c.merchant_id, c.customer_id, c.object_id, 'trigger'"
        ).format(distinct=distinct)
    return sql.SQL(
        """
BEGIN
{insert}
    FROM (
{changed}
    ) AS c
    WHERE c.merchant_id IS NOT NULL AND c.object_id IS NOT NULL;
{lost}    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'loyalty could not note changed {relation} (%: %); they are saved, the {finder} will find them',
        SQLSTATE, SQLERRM;
    RETURN NULL;
END
"""
    ).format(
        insert=insert,
        changed=changed_rows(capture),
        lost=lost_links(capture),
        relation=sql.SQL(NOTED[capture.relation] if capture.is_subscription else "orders"),
        finder=sql.SQL("nightly check" if capture.is_subscription else "sweep"),
    )


def lost_links(capture: Capture) -> sql.Composable:
    """Return the statement that notes what rows belonged to and belong to no longer; nothing where they are new."""
    links = LINKS.get(capture.relation, {}) if capture.is_subscription and capture.event != "insert" else {}
    queries = [
        (sql.SQL("({}\nEXCEPT\n{})") if capture.event == "update" else sql.SQL("{}")).format(
            *(link_query(capture, table, field, noted) for table in tables)
        )
        for field, noted in links.items()
        if field in capture.part.columns
        for tables in [("old_rows", "new_rows") if capture.event == "update" else ("old_rows",)]
    ]
    if not queries:
        return sql.SQL("")
    return sql.SQL(
        "    INSERT INTO loyalty.subscription_inbox (relation, merchant_id, object_id)\n"
        "    SELECT DISTINCT l.relation, l.merchant_id, l.object_id\n    FROM (\n{}\n    ) AS l\n"
        "    WHERE l.merchant_id IS NOT NULL AND l.object_id IS NOT NULL;\n"
    ).format(sql.SQL("\nUNION ALL\n").join(queries))


def link_query(capture: Capture, table: str, field: str, noted: LiteralString) -> sql.Composable:
    wanted = is_wanted(capture.part, capture.info)
    return sql.SQL("SELECT {} AS relation, {} AS merchant_id, {} AS object_id FROM {} AS {}{}").format(
        literal(noted),
        merchant_key(capture),
        as_text(capture.info.known(capture.part.columns[field])),
        sql.Identifier(table),
        ROW,
        sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(wanted)) if wanted else sql.SQL(""),
    )


def changed_rows(capture: Capture) -> sql.Composable:
    """Return the query over the transition tables that gives the keys of the rows to look at.

    For an update: rows of which something mapped is different now. The comparison holds the keys, so it works
    on sets of rows, and a row that a `where` takes out or lets in counts as changed.
    """
    if capture.event != "update":
        return keys_query(capture, "new_rows" if capture.event == "insert" else "old_rows", [])
    new, old = (keys_query(capture, table, compared_columns(capture)) for table in ("new_rows", "old_rows"))
    return sql.SQL("({new}\nEXCEPT\n{old})\nUNION ALL\n({old}\nEXCEPT\n{new})").format(new=new, old=old)


def keys_query(capture: Capture, table: str, compared: list[ColumnInfo]) -> sql.Composable:
    """Return what is noted of the rows in the transition table `table`, and `compared`."""
    outputs = [sql.SQL("{} AS merchant_id").format(merchant_key(capture))]
    if not capture.is_subscription:
        outputs.append(sql.SQL("{} AS customer_id").format(customer_hint(capture)))
    outputs.append(sql.SQL("{} AS object_id").format(capture.object_id))
    for number, column in enumerate(compared):
        is_plain = column.base_type in COMPARABLE_TYPES or column.is_enum
        value = raw(column) if is_plain else as_text(column)
        outputs.append(sql.SQL("{} AS {}").format(value, sql.Identifier(f"compared_{number}")))
    wanted = is_wanted(capture.part, capture.info)
    return sql.SQL("SELECT\n{}\nFROM {} AS {}{}").format(
        lines_of(outputs),
        sql.Identifier(table),
        ROW,
        sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(wanted)) if wanted else sql.SQL(""),
    )


def compared_columns(capture: Capture) -> list[ColumnInfo]:
    """Return the mapped columns whose change matters: all but the one that every write changes."""
    names = [column for field, column in capture.part.columns.items() if field != "updated_at"]
    return [capture.info.known(name) for name in dict.fromkeys(names)]


def merchant_key(capture: Capture) -> sql.Composable:
    field = SOURCE_RELATIONS[capture.relation].field("merchant_id")
    constant = default_value(field, capture.part.defaults.get("merchant_id"))
    if "merchant_id" not in capture.part.columns:
        return constant or sql.SQL("CAST(NULL AS text)")
    value = as_text(capture.info.known(capture.part.columns["merchant_id"]))
    return sql.SQL("COALESCE({}, {})").format(value, constant) if constant else value


def customer_hint(capture: Capture) -> sql.Composable:
    """Return the customer as far as the row tells; it only decides which rows are processed together."""
    column = capture.info.column(capture.part.columns.get("customer_id", ""))
    if capture.relation != "orders" or column is None:
        return sql.SQL("CAST('' AS text) COLLATE \"C\"")
    return sql.SQL("loyalty.customer_hint({})").format(as_text(column))


def trigger_statement(capture: Capture) -> sql.Composable:
    return sql.SQL(
        "CREATE OR REPLACE TRIGGER {trigger}\nAFTER {event} ON {table}\nREFERENCING {rows}\n"
        "FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
    ).format(
        trigger=sql.Identifier(capture.trigger),
        event=sql.SQL(capture.event.upper()),
        table=sql.Identifier(capture.info.schema_name, capture.info.table_name),
        rows=sql.SQL(TRANSITION_TABLES[capture.event]),
        function=sql.Identifier("loyalty_source", capture.function),
    )
