"""Renders the functions that find rows by the shop's own keys, one at a time or many at once."""

from collections.abc import Iterator
from typing import LiteralString

from psycopg import sql

from loyalty_pipelines.db.sources_catalog import TEXTS, RelationInfo, Relations
from loyalty_pipelines.db.sources_expressions import default_value, equals_key, literal
from loyalty_pipelines.db.sources_text import Block, lines_of
from loyalty_pipelines.db.sources_views import CHANGED_AT, empty_query, first_columns, mapped_query, view_columns
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, SourceRelation
from loyalty_pipelines.domain.source_mapping import MappedRelation, SourceMapping

KEYED = {
    "orders": "keyed_orders",
    "refunds": "keyed_refunds",
    "payments": "keyed_payments",
    "subscriptions": "keyed_subscriptions",
}
SET_FUNCTIONS: dict[str, dict[str, str]] = {
    "orders": {"orders_by_ids": "order_id", "orders_of_customers": "customer_id"},
    "payments": {
        "payments_by_ids": "payment_id",
        "payments_of_orders": "order_id",
        "payments_of_subscriptions": "subscription_id",
        "payments_of_customers": "customer_id",
    },
    "subscriptions": {
        "subscriptions_by_ids": "subscription_id",
        "subscriptions_of_orders": "order_id",
        "subscriptions_of_customers": "customer_id",
    },
}
"""Functions over many keys at once: name, and the field that is compared."""

Columns = list[tuple[str, LiteralString]]
Parameters = tuple[tuple[LiteralString, LiteralString], ...]
MERCHANT_PARAMETER: tuple[LiteralString, LiteralString] = ("p_merchant_id", "text")
ORDER_PARAMETER: tuple[LiteralString, LiteralString] = ("p_order_id", "text")
SINCE_PARAMETER: tuple[LiteralString, LiteralString] = ("p_since", "timestamp with time zone")
SET_PARAMETERS: Parameters = (("p_merchant_ids", "text[]"), ("p_ids", "text[]"))
MERCHANT_KEY = sql.SQL("k.key_merchant")
CHANGED_COLUMNS: Columns = [("merchant_id", "text"), ("object_id", "text")]


def keyed_statements(
    relation: SourceRelation, mapping: SourceMapping, relations: Relations
) -> Iterator[sql.Composable]:
    """Yield the helper view and the functions over it.

    The functions read a view, not the table: so they run with the rights of the view's owner on the shop's
    table (and through its row security), and the pipeline needs no right on any table of the shop. A plain
    SQL function without SET, STRICT and SECURITY DEFINER is inlined into the caller's plan.
    """
    part, info = mapping.relation(relation.name), relations.get(relation.name)
    helper = sql.Identifier("loyalty_source", KEYED[relation.name])
    yield sql.SQL("DROP VIEW IF EXISTS {}").format(helper)
    if part is None or info is None:
        part, info = None, None
        yield sql.SQL("CREATE VIEW {} AS\n{}").format(helper, empty_query(relation))
    else:
        query = mapped_query(relation, part, info, mapping.timezone, keys=True)
        yield sql.SQL("CREATE VIEW {} AS\n{}").format(helper, query)
    if relation.name in ("orders", "refunds"):
        for function, parameters, condition in functions_of(relation, part, info, mapping.timezone):
            yield from single_function(relation, helper, function, parameters, condition)
    else:
        yield from changed_function(relation, helper, part, info, mapping.timezone)
    for function, field_name in SET_FUNCTIONS.get(relation.name, {}).items():
        yield from set_function(relation, helper, function, set_condition(relation, field_name, part, info))


def functions_of(
    relation: SourceRelation, part: MappedRelation | None, info: RelationInfo | None, timezone: str
) -> Iterator[tuple[str, Parameters, sql.Composable]]:
    """Yield name, parameters and condition of each function over the helper view of orders or refunds."""
    nothing = sql.SQL("false")
    merchant = sql.SQL(MERCHANT_PARAMETER[0])
    of_merchant = merchant_condition(part, info, merchant) if part and info else nothing
    of_order, since = nothing, nothing
    if part and info:
        column = info.known(part.columns["order_id"])
        order = equals_key(sql.SQL("k.key_order"), column, sql.SQL(ORDER_PARAMETER[0]))
        of_order = sql.SQL("{} AND {}").format(of_merchant, order)
        since = since_condition(relation, part, info, timezone)
    by_order = "order_by_id" if relation.name == "orders" else "refunds_of_order"
    yield by_order, (MERCHANT_PARAMETER, ORDER_PARAMETER), of_order
    yield f"{relation.name}_of_merchant", (MERCHANT_PARAMETER,), of_merchant
    yield f"{relation.name}_changed_since", (SINCE_PARAMETER,), since


# --- conditions on the shop's own columns -----------------------------------------------------------------


def merchant_condition(
    part: MappedRelation, info: RelationInfo, word: sql.Composable, native: sql.Composable = MERCHANT_KEY
) -> sql.Composable:
    """Return the comparison of the merchant with `word`: by its own column, the constant, or either."""
    field = SOURCE_RELATIONS["orders"].field("merchant_id")
    constant = default_value(field, part.defaults.get("merchant_id"))
    is_constant = sql.SQL('{} COLLATE "C" = {}').format(word, constant or sql.SQL("NULL"))
    if "merchant_id" not in part.columns:
        return is_constant
    is_equal = equals_key(native, info.known(part.columns["merchant_id"]), word)
    if constant is None:
        return is_equal
    return sql.SQL("({} OR ({} IS NULL AND {}))").format(is_equal, native, is_constant)


def set_condition(
    relation: SourceRelation, field_name: str, part: MappedRelation | None, info: RelationInfo | None
) -> sql.Composable:
    """Return the comparison of the helper view `k` with the merchants and ids of `t`; false for an unmapped key."""
    column = info.column(part.columns.get(field_name, "")) if part and info else None
    if part is None or info is None or column is None:
        return sql.SQL("false")
    native = sql.SQL("k.{}").format(sql.Identifier(f"key_{field_name.removesuffix('_id')}"))
    conditions = [merchant_condition(part, info, sql.SQL("t.merchant_id"))]
    conditions.append(equals_key(native, column, sql.SQL("t.id")))
    if relation.field(field_name).blank_is_null and column.base_type in TEXTS:
        # The view shows an empty text as NULL, and what is not there is nobody's.
        conditions.append(sql.SQL("t.id <> ''"))
    return sql.SQL("\n    AND ").join(conditions)


def since_condition(
    relation: SourceRelation, part: MappedRelation, info: RelationInfo, timezone: str
) -> sql.Composable:
    """Return `changed at or after p_since`, on the raw column for its index and exactly on ours.

    The hour that a local clock repeats in autumn makes local times run backwards, hence the margin of a day.
    """
    changed_at = CHANGED_AT[relation.name]
    if changed_at not in part.columns:
        return sql.SQL("false")
    column = info.known(part.columns[changed_at])
    exact = sql.SQL("k.{} >= p_since").format(sql.Identifier(changed_at))
    if column.base_type == "timestamptz":
        return sql.SQL("k.key_changed >= p_since")
    local = sql.SQL("CAST(p_since AT TIME ZONE {} - interval '1 day' AS {})").format(
        literal(timezone), sql.SQL("date" if column.base_type == "date" else "timestamp without time zone")
    )
    return sql.SQL("k.key_changed >= {} AND {}").format(local, exact)


# --- the functions ----------------------------------------------------------------------------------------


def single_function(
    relation: SourceRelation,
    helper: sql.Composable,
    function: str,
    parameters: Parameters,
    condition: sql.Composable,
) -> Iterator[sql.Composable]:
    """Yield a function of the first version; CREATE OR REPLACE can't add columns to what it returns."""
    columns = first_columns(relation)
    outputs = lines_of(sql.SQL("k.{}").format(sql.Identifier(name)) for name, _ in columns)
    body = sql.SQL("\nSELECT\n{}\nFROM {} AS k\nWHERE {}\n").format(outputs, helper, condition)
    yield from function_statements(function, parameters, columns, body)


def set_function(
    relation: SourceRelation, helper: sql.Composable, function: str, condition: sql.Composable
) -> Iterator[sql.Composable]:
    """Yield a function over many keys: a join, so that PostgreSQL chooses between the shop's index and one scan.

    The collation is written down: to that of the caller's arrays `a` and `A` might be the same key.
    """
    columns = view_columns(relation)
    outputs = lines_of(sql.SQL("k.{}").format(sql.Identifier(name)) for name, _ in columns)
    body = sql.SQL(
        "\nSELECT\n{outputs}\nFROM (\n"
        '    SELECT DISTINCT u.merchant_id COLLATE "C" AS merchant_id, u.id COLLATE "C" AS id\n'
        "    FROM unnest(p_merchant_ids, p_ids) AS u (merchant_id, id)\n"
        ") AS t\nINNER JOIN {helper} AS k\n    ON {condition}\n"
    ).format(outputs=outputs, helper=helper, condition=condition)
    yield from function_statements(function, SET_PARAMETERS, columns, body)


def changed_function(
    relation: SourceRelation,
    helper: sql.Composable,
    part: MappedRelation | None,
    info: RelationInfo | None,
    timezone: str,
) -> Iterator[sql.Composable]:
    """Yield the function that names what was changed since; no rows where updated_at is not mapped."""
    condition = since_condition(relation, part, info, timezone) if part and info else sql.SQL("false")
    body = sql.SQL("\nSELECT\n    k.merchant_id,\n    k.{key}\nFROM {helper} AS k\nWHERE {condition}\n").format(
        key=sql.Identifier(relation.key[1]), helper=helper, condition=condition
    )
    yield from function_statements(f"{relation.name}_changed_since", (SINCE_PARAMETER,), CHANGED_COLUMNS, body)


def function_statements(
    function: str, parameters: Parameters, columns: Columns, body: sql.Composable
) -> Iterator[sql.Composable]:
    name = sql.Identifier("loyalty_source", function)
    yield sql.SQL(
        "CREATE OR REPLACE FUNCTION {name}({parameters})\nRETURNS TABLE (\n{columns}\n)\n"
        "LANGUAGE sql STABLE ROWS {rows}\nAS {body}"
    ).format(
        name=name,
        parameters=sql.SQL(", ").join(sql.SQL(f"{name} {kind}") for name, kind in parameters),
        columns=lines_of(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns),
        rows=sql.SQL("1" if function == "order_by_id" else "100"),
        body=Block(body),
    )
    signature = sql.SQL(", ").join(sql.SQL(kind) for _, kind in parameters)
    yield sql.SQL("REVOKE ALL ON FUNCTION {}({}) FROM PUBLIC").format(name, signature)
    # The owner: the checkout functions run with its rights.
    yield sql.SQL("GRANT EXECUTE ON FUNCTION {}({}) TO loyalty_owner, loyalty_pipeline").format(name, signature)
