"""Puts a source mapping into force: checks it against the live catalogue, shows it, applies it.

What callers write against the views and key functions is described in docs/source-mapping.md.
"""

from sqlalchemy import Connection, Row

from loyalty_pipelines.db.sources_capture import captures_of
from loyalty_pipelines.db.sources_catalog import (
    Relations,
    read_relations,
    read_rights,
    read_triggers,
)
from loyalty_pipelines.db.sources_check import find_problems
from loyalty_pipelines.db.sources_render import render_script, uncertain_keys, unindexed_keys, unseen_changes
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.source_mapping import (
    AppliedMapping,
    MappingProblem,
    MappingWithdrawnError,
    NoMappingError,
    OutdatedViewsError,
    SourceMapping,
    SourceMappingError,
    parse_mapping,
)

LOCK = load("sources/lock")
STORE = load("sources/store")
HAS_LATER_COLUMNS = load("sources/has_later_columns")
CURRENT = load("sources/current")
STORE_WITHDRAWAL = load("sources/store_withdrawal")
GET_LOCK_TIMEOUT = load("sources/lock_timeout")
SET_LOCK_TIMEOUT = load("sources/set_lock_timeout")


def check(conn: Connection, mapping: SourceMapping) -> list[MappingProblem]:
    """Return every reason why `mapping` does not fit this database; empty when it can be applied."""
    return find_problems(conn, mapping, read_relations(conn, mapping))


def render(conn: Connection, mapping: SourceMapping) -> str:
    """Return the SQL script that `apply` would run now. Changes nothing.

    Raises SourceMappingError when the mapping does not fit.
    """
    statements = _statements(conn, mapping, _fitting_relations(conn, mapping))
    return "".join(f"{statement};\n\n" for statement in statements)


def apply(conn: Connection, mapping: SourceMapping) -> AppliedMapping:
    """Replace views, key functions and capture triggers by those of `mapping`, and record it.

    Runs in the caller's transaction and does not commit. Repeating it leaves the same state. Waits at most 5
    seconds for each lock on the shop's tables; then the driver's lock_not_available is raised, and the caller
    rolls back. Raises SourceMappingError when the mapping does not fit.
    """
    conn.execute(LOCK)
    relations = _fitting_relations(conn, mapping)
    _run(conn, _statements(conn, mapping, relations))
    applied_at = conn.execute(STORE, {"mapping_yaml": mapping.yaml_text}).scalar_one()
    return AppliedMapping(
        mapping=mapping,
        applied_at=applied_at,
        triggers=tuple(f"{capture.trigger} on {capture.part.relation}" for capture in captures_of(mapping, relations)),
        notes=(
            *unindexed_keys(mapping, relations),
            *uncertain_keys(mapping, relations),
            *unseen_changes(mapping),
        ),
    )


def current(conn: Connection) -> SourceMapping | None:
    """Return the mapping that was applied last, withdrawn or not; None when none was ever applied.

    `mapped_relations` of the result says which views have rows. Raises SourceMappingError when the recorded
    text is not understood, for example because a newer version wrote it.
    """
    row = conn.execute(CURRENT).one_or_none()
    return None if row is None else parse_mapping(row.mapping_yaml)


def require_shop(conn: Connection) -> None:
    """Raise `NoMappingError` when no mapping was ever applied, or the last one is withdrawn.

    Whatever looks at the shop's orders asks here first: behind a withdrawn mapping all of them seem deleted.
    """
    _required(conn)


def require_mapping(conn: Connection, *, even_withdrawn: bool = False) -> SourceMapping:
    """Return the mapping in force; raises as `require_shop` does, and SourceMappingError as `current` does."""
    return parse_mapping(_required(conn, even_withdrawn=even_withdrawn).mapping_yaml)


def _required(conn: Connection, *, even_withdrawn: bool = False) -> Row:
    row = conn.execute(CURRENT).one_or_none()
    if row is None:
        raise NoMappingError
    if row.is_withdrawn and not even_withdrawn:
        raise MappingWithdrawnError
    return row


def require_columns(conn: Connection) -> None:
    """Raise `OutdatedViewsError` when the views were made by a version that knew fewer columns and functions.

    Raises `NoMappingError` as `require_shop` does, because then no views are to be expected.
    """
    _required(conn)
    if not conn.execute(HAS_LATER_COLUMNS).scalar_one():
        raise OutdatedViewsError


def is_outdated(conn: Connection) -> bool:
    """True when a mapping is in force whose views were made by an older version."""
    try:
        require_columns(conn)
    except OutdatedViewsError:
        return True
    except NoMappingError:
        return False
    return False


def withdraw(conn: Connection) -> None:
    """Let go of the shop's tables: empty the views, remove the triggers. `apply` puts everything back.

    For migrations of the shop that drop or retype a column that the views read. The record of the mapping
    stays, and so do a fixed list of merchants and what was built on the views. Nothing is awarded meanwhile.
    Repeating it changes nothing. Raises `NoMappingError` when none was ever applied. Runs in the caller's
    transaction and does not commit.
    """
    conn.execute(LOCK)
    mapping = require_mapping(conn, even_withdrawn=True)
    _run(conn, _statements(conn, mapping, {}))
    conn.execute(STORE_WITHDRAWAL, {"mapping_yaml": mapping.yaml_text})


def _run(conn: Connection, statements: list[str]) -> None:
    previous_timeout = conn.execute(GET_LOCK_TIMEOUT).scalar_one()
    for statement in statements:
        # Without parameters, so that a percent sign in a name or word stays one.
        conn.exec_driver_sql(statement, execution_options={"no_parameters": True})
    conn.execute(SET_LOCK_TIMEOUT, {"lock_timeout": previous_timeout})


def _fitting_relations(conn: Connection, mapping: SourceMapping) -> Relations:
    relations = read_relations(conn, mapping)
    problems = find_problems(conn, mapping, relations)
    if problems:
        raise SourceMappingError(problems)
    return relations


def _statements(conn: Connection, mapping: SourceMapping, relations: Relations) -> list[str]:
    """Return the statements as texts, quoted as this connection needs it."""
    context = conn.connection.driver_connection
    statements = render_script(mapping, relations, read_rights(conn), read_triggers(conn))
    return [statement.as_string(context) for statement in statements]  # type: ignore[arg-type]
