"""Compares the section `fixes` of a source mapping with the live catalogue."""

from collections.abc import Iterator

from sqlalchemy import Connection

from loyalty_pipelines.db.sources_catalog import (
    TEXTS,
    ColumnInfo,
    FunctionInfo,
    RelationInfo,
    Relations,
    read_functions,
    read_is_writable,
)
from loyalty_pipelines.domain.source_mapping import (
    FixAction,
    Fixes,
    FunctionName,
    MappedRelation,
    MappingProblem,
    SourceMapping,
)
from loyalty_pipelines.domain.source_rules import did_you_mean, listed, shorten

CREATION_FIELDS = (
    "merchant_id",
    "subscription_id",
    "customer_id",
    "plan_id",
    "order_id",
    "status",
    "amount",
    "currency",
    "current_period_start",
    "current_period_end",
    "created_at",
    "updated_at",
    "is_complimentary",
)
"""The fields that a new subscription may be given; whatever else its table demands needs a default."""
OR_A_FUNCTION = "or name a function of the shop: {function: schema.name}"


def fix_problems(conn: Connection, mapping: SourceMapping, relations: Relations) -> Iterator[MappingProblem]:
    """Yield every reason why an action of `fixes` could not be done."""
    fixes = mapping.fixes or Fixes()
    for name, action in fixes.actions.items():
        if action.function is not None:
            yield from _function_problems(conn, f"fixes.{name}", action.function)
    part, info = mapping.subscriptions, relations.get("subscriptions")
    written = {name: action for name, action in fixes.actions.items() if action.is_write}
    if part is None or info is None or not written:
        return
    yield from _write_problems(written, part, info, is_writable=read_is_writable(conn, info))
    # Columns that don't exist are told already.
    if "create_subscription" in written and all(info.column(name) for name in part.columns.values()):
        yield from _creation_problems(part, info)


def _problem(path: str, found: str, exists: str, advice: str) -> MappingProblem:
    return MappingProblem(path=path, found=found, exists=exists, advice=advice)


def _function_problems(conn: Connection, path: str, name: FunctionName) -> Iterator[MappingProblem]:
    functions = read_functions(conn, name)
    same_name = [one for one in functions if (one.schema_name, one.function_name) == (name.schema_name, name.name)]
    fitting = next((one for one in same_name if one.fits), None)
    wanted = f"{name}(plan jsonb) RETURNS text"
    if fitting is None:
        exists, advice = _near(functions, same_name, name)
        yield _problem(f"{path}.function", f"found no function {wanted}", exists, advice)
    elif not fitting.is_allowed:
        grants = f"GRANT USAGE ON SCHEMA {name.schema_name} and GRANT EXECUTE ON FUNCTION {name}(jsonb)"
        found = f"found no right of loyalty_pipeline to call {wanted}"
        yield _problem(f"{path}.function", found, "", f"run as its owner: {grants} TO loyalty_pipeline")


def _near(functions: list[FunctionInfo], same_name: list[FunctionInfo], name: FunctionName) -> tuple[str, str]:
    if same_name:
        return f"there is {listed(one.shown for one in same_name)}", "give it one argument of type jsonb, and text back"
    elsewhere = [one for one in functions if one.function_name == name.name]
    if elsewhere:
        first = f"{elsewhere[0].schema_name}.{elsewhere[0].function_name}"
        return f"there is {listed(one.shown for one in elsewhere)}", f'did you mean "{first}"'
    here = sorted({one.function_name for one in functions})
    exists = f"the schema has {listed(here)}" if here else f"schema {shorten(name.schema_name)} has no functions"
    return exists, did_you_mean(name.name, here, "create it, or name one that exists")


def _write_problems(
    written: dict[str, FixAction], part: MappedRelation, info: RelationInfo, *, is_writable: bool
) -> Iterator[MappingProblem]:
    shown = f"{info.schema_name}.{info.table_name}"
    for name in written:
        if not is_writable:
            exists = "PostgreSQL can't insert, update and delete there"
            advice = f"map the table or a simple view, {OR_A_FUNCTION}"
            yield _problem(f"fixes.{name}", f"found write, and subscriptions in {shorten(shown)}", exists, advice)
        elif info.missing_rights:
            found = f"found no right to {info.missing_rights} on {shorten(shown)}"
            grant = f"GRANT {info.missing_rights} ON {shown} to the user that applies this"
            yield _problem(f"fixes.{name}", found, f"it belongs to {info.owner}", f"run as {info.owner}: {grant}")
    for field, column_name in part.columns.items():
        column = info.column(column_name)
        if column is not None and column.is_generated and field != "subscription_id":
            found = f"found the generated column {shorten(column_name)}"
            exists = "nobody can write it, and fixes are to be written"
            yield _problem(f"subscriptions.columns.{field}", found, exists, f"map a plain column, {OR_A_FUNCTION}")


def _creation_problems(part: MappedRelation, info: RelationInfo) -> Iterator[MappingProblem]:
    path = "fixes.create_subscription"
    given = {column for field, column in part.columns.items() if field in CREATION_FIELDS} | set(part.where)
    demanded = [
        column.name
        for column in info.columns
        if column.is_not_null and not (column.has_default or column.is_generated) and column.name not in given
    ]
    for name in demanded:
        found = f"found column {shorten(name)}, which is NOT NULL and has no default"
        exists = "a new subscription would not have it"
        yield _problem(path, found, exists, f"give it a default, {OR_A_FUNCTION}")
    key = info.known(part.columns["subscription_id"])
    if not (makes_own_ids(key, info) or takes_our_ids(key)):
        found = f"found key {shorten(key.name)} of type {key.shown_type} without a default"
        yield _problem(path, found, "a new subscription would have no id", f"give it a default, {OR_A_FUNCTION}")
    for column in info.columns:
        if column.sequence_name and column.name not in given - {key.name} and not column.can_share_sequence:
            found = f"found no right of loyalty_pipeline to number {shorten(column.name)}"
            advice = f"GRANT USAGE ON SEQUENCE {column.sequence_schema}.{column.sequence_name} TO loyalty_pipeline"
            yield _problem(path, found, f"it belongs to {info.owner}", f"run as {info.owner}: {advice}")


def makes_own_ids(key: ColumnInfo, info: RelationInfo) -> bool:
    """True when a row without an id gets one. What is behind a view can't be seen, and is taken to give one."""
    return key.has_default or key.is_generated or info.kind == "v"


def takes_our_ids(key: ColumnInfo) -> bool:
    """True when any text can be made into an id of this type."""
    return not key.is_generated and (key.base_type in TEXTS or key.base_type == "uuid")
