"""Compares a source mapping with the live catalogue and names everything that does not fit."""

from collections.abc import Iterator

from sqlalchemy import Connection

from loyalty_pipelines.db.sources_catalog import (
    FLOATS,
    INTEGERS,
    TEXTS,
    TIMESTAMPS,
    ColumnInfo,
    RelationInfo,
    Relations,
    Rights,
    read_relation_names,
    read_rights,
    read_time_zones,
)
from loyalty_pipelines.db.sources_fix_check import fix_problems
from loyalty_pipelines.domain.source_mapping import (
    SOURCE_RELATIONS,
    CaptureMode,
    FieldKind,
    FixedMerchants,
    MappedRelation,
    MappingProblem,
    RelationName,
    SourceMapping,
)
from loyalty_pipelines.domain.source_rules import did_you_mean, listed, shorten

AMOUNT_TYPES = INTEGERS | FLOATS | TEXTS | {"numeric", "money"}
POINT_TYPES = INTEGERS | FLOATS | TEXTS | {"numeric"}
BOOLEAN_TYPES = INTEGERS | TEXTS | {"bool"}
# Their text depends on settings of the session (extra_float_digits, lc_monetary, DateStyle, TimeZone), so the
# same order would have another id in another session.
UNSTABLE_ID_TYPES = FLOATS | TIMESTAMPS | {"money", "time", "timetz", "interval", "json", "jsonb", "xml"}

KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
CAPTURED_RELATIONS = ("orders", "refunds", "payments", "subscriptions")
POLL = "set capture: poll"


def find_problems(conn: Connection, mapping: SourceMapping, relations: Relations) -> list[MappingProblem]:
    """Return every reason why `mapping` cannot be applied by the current user; empty when it can."""
    problems = list(_rights_problems(read_rights(conn), mapping))
    problems.extend(_time_zone_problems(conn, mapping))
    for name in mapping.mapped_relations:
        part = mapping.relation(name)
        if part is None:
            continue
        relation = relations.get(name)
        if relation is None or not relation.can_use_schema:
            problems.append(_missing_relation(conn, name, part.relation, relation))
            continue
        problems.extend(_relation_problems(name, relation))
        problems.extend(_column_problems(name, part, relation))
        if mapping.capture is CaptureMode.TRIGGER and name in CAPTURED_RELATIONS:
            problems.extend(_trigger_problems(name, relation))
    problems.extend(fix_problems(conn, mapping, relations))
    return problems


def _problem(path: str, found: str, exists: str, advice: str) -> MappingProblem:
    return MappingProblem(path=path, found=found, exists=exists, advice=advice)


def _rights_problems(rights: Rights, mapping: SourceMapping) -> Iterator[MappingProblem]:
    if not (rights.has_schema and rights.has_tables and rights.has_capture_role):
        found = "found no schema loyalty_source, role loyalty_capture or table loyalty.order_inbox"
        yield _problem("database", found, "", "run loyalty init first")
        return
    if not rights.can_create:
        found = f"found no right of {rights.user_name} to create in schema loyalty_source"
        grant = f"GRANT CREATE, USAGE ON SCHEMA loyalty_source TO {rights.user_name}"
        yield _problem("database", found, "", f"run as its owner: {grant}")
    if not rights.can_record:
        found = f"found no right of {rights.user_name} to record the mapping"
        grants = "GRANT USAGE ON SCHEMA loyalty and GRANT SELECT, INSERT ON loyalty.source_mapping"
        yield _problem("database", found, "", f"run as its owner: {grants} TO {rights.user_name}")
    if rights.other_owners:
        found = f"found views in loyalty_source that belong to {rights.other_owners}"
        yield _problem("database", found, f"you are {rights.user_name}", "apply the mapping as their owner")
    is_trigger = mapping.capture is CaptureMode.TRIGGER
    if is_trigger and not (rights.is_superuser or rights.is_capture_member or rights.can_join_capture):
        found = f"found that {rights.user_name} cannot give functions to role loyalty_capture"
        advice = f"run as a superuser: GRANT loyalty_capture TO {rights.user_name}; or {POLL}"
        yield _problem("capture", found, "", advice)


def _time_zone_problems(conn: Connection, mapping: SourceMapping) -> Iterator[MappingProblem]:
    used = {"timezone": mapping.timezone}
    if isinstance(mapping.merchants, FixedMerchants):
        for number, row in enumerate(mapping.merchants.rows):
            used[f"merchants.rows[{number}].timezone"] = row.timezone
    elif "timezone" in mapping.merchants.defaults:
        used["merchants.defaults.timezone"] = mapping.merchants.defaults["timezone"]
    known = read_time_zones(conn)
    for path, zone in used.items():
        if zone not in known:
            exists = "the server knows names such as Europe/Paris, Asia/Kolkata and UTC"
            cities = [name for name in known if name.rpartition("/")[2].lower() == zone.lower()]
            nearest = did_you_mean(zone, known, "look it up in pg_timezone_names")
            advice = f'did you mean "{cities[0]}"' if cities else nearest
            yield _problem(path, f"found the unknown time zone {shorten(zone)}", exists, advice)


def _missing_relation(
    conn: Connection, name: str, wanted: RelationName, relation: RelationInfo | None
) -> MappingProblem:
    path = f"{name}.relation"
    if relation is not None:
        advice = f"run as its owner: GRANT USAGE ON SCHEMA {wanted.schema_name} to the user that applies this"
        return _problem(path, f"found no right to use schema {shorten(wanted.schema_name)}", "", advice)
    names = read_relation_names(conn)
    schemas = sorted({schema for schema, _ in names})
    found = f"found no relation {shorten(wanted.table)} in schema {shorten(wanted.schema_name)}"
    same_name = [f"{schema}.{table}" for schema, table in names if table.lower() == wanted.table.lower()]
    if same_name:
        return _problem(path, found, f"there is {listed(same_name)}", f'did you mean "{same_name[0]}"')
    here = [table for schema, table in names if schema == wanted.schema_name]
    exists = f"the schema has {listed(here)}" if here else f"schemas with relations are {listed(schemas) or 'none'}"
    everywhere = {f"{schema}.{table}": None for schema, table in names}
    advice = did_you_mean(str(wanted), everywhere, "name a table, view or foreign table that exists")
    return _problem(path, found, exists, advice)


def _relation_problems(name: str, relation: RelationInfo) -> Iterator[MappingProblem]:
    path = f"{name}.relation"
    shown = f"{relation.schema_name}.{relation.table_name}"
    if relation.schema_name in ("loyalty_source", "pg_catalog", "information_schema"):
        advice = "name a relation of the shop"
        yield _problem(path, f"found {shorten(shown)}", f"{relation.schema_name} holds no shop's data", advice)
    if relation.persistence == "t":
        yield _problem(path, f"found the temporary table {shorten(shown)}", "", "name a lasting relation")
    if not relation.can_select:
        found = f"found no right to read {shorten(shown)}"
        advice = f"run as {relation.owner}: GRANT SELECT on it to the user that applies this"
        yield _problem(path, found, f"it belongs to {relation.owner}", advice)
    if relation.hides_rows:
        found = f"found that row security hides rows of {shorten(shown)} from the current user"
        advice = "apply as its owner or as a role with BYPASSRLS, otherwise orders look deleted"
        yield _problem(path, found, f"it belongs to {relation.owner}", advice)


def _column_problems(name: str, part: MappedRelation, relation: RelationInfo) -> Iterator[MappingProblem]:
    used = {f"{name}.columns.{field}": column for field, column in part.columns.items()}
    used |= {f"{name}.where.{column}": column for column in part.where}
    for path, column in used.items():
        if relation.column(column) is None:
            found = f"found no column {shorten(column)} in {relation.schema_name}.{relation.table_name}"
            exists = f"its columns are {listed(relation.column_names, 100)}"
            advice = did_you_mean(column, relation.column_names, "name one of these")
            yield _problem(path, found, exists, advice)
    for field in SOURCE_RELATIONS[name].fields:
        column = relation.column(part.columns.get(field.name, ""))
        wanted = _wanted_type(field.kind, column) if column else None
        if column and wanted:
            found = f"found column {shorten(column.name)} of type {column.shown_type}"
            advice = f"map another column, or a view that converts it to {wanted[1]}"
            yield _problem(f"{name}.columns.{field.name}", found, f"expected {wanted[0]}", advice)


def _wanted_type(kind: FieldKind, column: ColumnInfo) -> tuple[str, str] | None:  # noqa: PLR0911 - a line per kind
    """Return what types the kind takes and the best one when `column` has none of them; None when it has."""
    match kind:
        case FieldKind.ID if column.base_type in UNSTABLE_ID_TYPES:
            return "an integer, uuid or text, which reads the same in every session", "text"
        case FieldKind.AMOUNT if column.base_type not in AMOUNT_TYPES:
            return "a number, money or text", "numeric"
        case FieldKind.POINTS if column.base_type not in POINT_TYPES:
            return "a number or text", "bigint"
        case FieldKind.TIMESTAMP if column.base_type not in TIMESTAMPS:
            return "timestamp with or without time zone, or date", "timestamp with time zone"
        case FieldKind.BOOLEAN if column.base_type not in BOOLEAN_TYPES:
            return "boolean, integer or text", "boolean"
        case FieldKind.CURRENCY if column.base_type not in TEXTS and not column.is_enum:
            return "text or an enum", "text"
        case _:
            return None


def _trigger_problems(name: str, relation: RelationInfo) -> Iterator[MappingProblem]:
    path = f"{name}.relation"
    shown = f"{relation.schema_name}.{relation.table_name}"
    if relation.kind in KINDS:
        exists = "capture: trigger needs a table"
        yield _problem(path, f"found {KINDS[relation.kind]}, {shorten(shown)}", exists, POLL)
    elif relation.is_child:
        exists = "its triggers would not see what is written through the parent"
        yield _problem(
            path, f"found a partition or child table, {shorten(shown)}", exists, f"map the parent, or {POLL}"
        )
    elif not relation.can_trigger:
        found = f"found no right to create triggers on {shorten(shown)}"
        advice = f"run as {relation.owner}: GRANT TRIGGER on it to the user that applies this; or {POLL}"
        yield _problem(path, found, f"it belongs to {relation.owner}", advice)
