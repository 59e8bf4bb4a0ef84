"""Renders a source mapping as the SQL script that puts it into force: views, key functions, rights, triggers."""

from collections.abc import Iterator

from psycopg import sql

from loyalty_pipelines.db.sources_capture import capture_statements
from loyalty_pipelines.db.sources_catalog import InstalledTrigger, Relations, Rights
from loyalty_pipelines.db.sources_expressions import has_native_key, literal
from loyalty_pipelines.db.sources_fixes import fix_statements
from loyalty_pipelines.db.sources_lookups import KEYED, keyed_statements
from loyalty_pipelines.db.sources_views import view_statement
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS
from loyalty_pipelines.domain.source_mapping import CaptureMode, SourceMapping

KEYS = {
    "orders": ("order_id", "Award batches"),
    "refunds": ("order_id", "Award batches"),
    "payments": ("payment_id", "Checks of payments"),
    "subscriptions": ("subscription_id", "Checks of subscriptions"),
}
# CREATE TRIGGER waits for every transaction that writes the shop's table, and the shop's next writes wait for
# it: better to give up and be run again than to hold up a checkout.
LOCK_TIMEOUT = "5s"


def render_script(
    mapping: SourceMapping, relations: Relations, rights: Rights, installed: list[InstalledTrigger]
) -> list[sql.Composable]:
    """Return the statements, in order, that put `mapping` into force, all in one transaction."""
    statements: list[sql.Composable] = [sql.SQL("SET LOCAL lock_timeout = {}").format(literal(LOCK_TIMEOUT))]
    for relation in SOURCE_RELATIONS.values():
        statements.append(view_statement(relation, mapping, relations))
    for name in KEYED:
        statements.extend(keyed_statements(SOURCE_RELATIONS[name], mapping, relations))
    statements.extend(grant_statements())
    statements.extend(fix_statements(mapping, relations))
    statements.extend(capture_statements(mapping, relations, rights, installed))
    return statements


# --- rights -----------------------------------------------------------------------------------------------


def grant_statements() -> Iterator[sql.Composable]:
    """Yield the grants: all views to the pipeline, those without personal data to dashboards."""
    names = [*SOURCE_RELATIONS, *KEYED.values()]
    views = sql.SQL(", ").join(sql.Identifier("loyalty_source", name) for name in names)
    yield sql.SQL("GRANT SELECT ON {} TO loyalty_owner, loyalty_pipeline").format(views)
    yield sql.SQL("GRANT SELECT ON loyalty_source.merchants, loyalty_source.orders TO loyalty_reader")


def uncertain_keys(mapping: SourceMapping, relations: Relations) -> list[str]:
    """Return a note for each relation that may show one merchant or order more than once."""
    notes = []
    for name, fields in (("merchants", ("merchant_id",)), ("orders", ("merchant_id", "order_id"))):
        part, info = mapping.relation(name), relations.get(name)
        if part is None or info is None:
            continue
        key = {part.columns[field] for field in fields if field in part.columns}
        if not any(key.issuperset(unique) for unique in info.unique_keys):
            notes.append(
                f"{name}: no unique index on {part.relation} keeps it from showing one of its {name} more than once"
                + (" (an order that it shows twice is not decided and goes to the queue)." if name == "orders" else ".")
            )
    return notes


def unindexed_keys(mapping: SourceMapping, relations: Relations) -> list[str]:
    """Return a note for each key column whose type no index can serve."""
    notes = []
    for name, (field_name, reader) in KEYS.items():
        part, info = mapping.relation(name), relations.get(name)
        column = info.column(part.columns[field_name]) if part and info else None
        if column is not None and not has_native_key(column):
            notes.append(
                f"{name}.columns.{field_name}: {column.name} is of type {column.shown_type}, which is compared as"
                f" text without an index. {reader} will read the whole table: map a view that gives it"
                " as text over an indexed expression, or change its type."
            )
    return notes


def unseen_changes(mapping: SourceMapping) -> list[str]:
    """Return a note for each relation whose changes nobody would notice before the nightly check."""
    if mapping.capture is not CaptureMode.POLL:
        return []
    parts = {name: mapping.relation(name) for name in ("payments", "subscriptions")}
    return [
        f"{name}.columns.updated_at is not mapped: in poll mode a change of {name} is seen by the nightly full check"
        " only."
        for name, part in parts.items()
        if part is not None and "updated_at" not in part.columns
    ]
