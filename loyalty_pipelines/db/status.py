"""Reads how an installation stands, from nothing installed to everything at work."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import migrate
from loyalty_pipelines.db.sources_capture import captures_of
from loyalty_pipelines.db.sources_catalog import read_relations
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.source_mapping import (
    MappingWithdrawnError,
    SourceMapping,
    SourceMappingError,
    parse_mapping,
)
from loyalty_pipelines.domain.status import (
    CaptureTrigger,
    LastBatch,
    MappingStatus,
    MerchantCounts,
    OpenErrors,
    QueuedReason,
    Stage,
    Status,
    TriggerState,
    WaitingOrders,
    findings_of,
)

SERVER = load("status/server")
MAPPING = load("status/mapping")
ENABLED_TRIGGERS = load("status/enabled_triggers")
PROBE = load("status/probe")
MERCHANTS = load("status/merchants")
WAITING = load("status/waiting")
COUNT_WAITING = load("status/count_waiting")
LAST_BATCH = load("status/last_batch")
QUEUE = load("status/queue")
OPEN_FINDINGS = load("status/open_findings")


def read_status(conn: Connection, *, database: str, limit: int = 10) -> Status:
    """Return how the installation stands; `database` is its name for people, `limit` bounds the list of merchants."""
    status = Status(
        database=database,
        stage=Stage.WORKING,
        server_version=conn.execute(SERVER).scalar_one(),
        schema_version=migrate.version(conn),
    )
    status = _with_ledger(conn, status, limit)
    return replace(status, findings=tuple(findings_of(status)))


def count_waiting(conn: Connection, merchants: Sequence[str] = ()) -> int:
    """Return how many inbox rows wait, of `merchants` or (none named) of all."""
    return conn.execute(COUNT_WAITING, {"merchants": list(merchants)}).scalar_one()


def _with_ledger(conn: Connection, status: Status, limit: int) -> Status:
    if status.schema_version is None:
        return replace(
            status,
            stage=Stage.NOT_INSTALLED,
            advice="Nothing is installed in this database: run 'loyalty init'.",
        )
    try:
        migrate.require_current(conn)
    except migrate.SchemaVersionError as error:
        return replace(status, stage=Stage.OTHER_VERSION, expected_version=error.expected, advice=str(error))
    status = replace(
        status,
        expected_version=status.schema_version,
        queue=_queue(conn),
        last_batch=_last(conn),
        open_errors=tuple(OpenErrors(**row._mapping) for row in conn.execute(OPEN_FINDINGS)),
    )
    waiting = conn.execute(WAITING, {"row_limit": limit}).all()
    if waiting:
        status = replace(
            status,
            waiting=tuple(
                WaitingOrders(merchant_id=row.merchant_id, orders=row.orders, oldest_at=row.oldest_at, age=row.age)
                for row in waiting
            ),
            waiting_orders=int(waiting[0].all_orders),
            waiting_merchants=waiting[0].all_merchants,
        )
    return _with_source(conn, status)


def _with_source(conn: Connection, status: Status) -> Status:
    row = conn.execute(MAPPING).one_or_none()
    if row is None:
        return replace(
            status,
            stage=Stage.NOT_MAPPED,
            advice="No source mapping is in force: map your shop with 'loyalty sources apply --file F' ('loyalty "
            "sources presets' has some to start from), or try an export with 'loyalty orders import F --merchant M'.",
        )
    if row.is_withdrawn:
        return replace(status, stage=Stage.NOT_MAPPED, advice=str(MappingWithdrawnError()))
    status = replace(status, mapping=_mapping(conn, row))
    assert status.mapping is not None
    if status.mapping.problems:
        return replace(status, stage=Stage.MAPPING_BROKEN)
    try:
        # Not sources.check: that asks whether the mapping could be applied again, by a user who may only read, too.
        with conn.begin_nested():
            conn.execute(PROBE)
            counts = conn.execute(MERCHANTS).one()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) is None:
            raise
        text = str(error.orig).splitlines()[0]
        return replace(
            status,
            stage=Stage.MAPPING_BROKEN,
            mapping=replace(status.mapping, problems=(f"{text}; apply the mapping again.",)),
        )
    return _with_merchants(status, MerchantCounts(in_shop=counts.in_shop, with_program=counts.with_program))


def _with_merchants(status: Status, merchants: MerchantCounts) -> Status:
    status = replace(status, merchants=merchants)
    if not merchants.in_shop:
        return replace(
            status,
            stage=Stage.NO_PROGRAM,
            advice="The shop lists no active merchant: look at 'merchants' in the source mapping.",
        )
    if not merchants.with_program:
        return replace(
            status,
            stage=Stage.NO_PROGRAM,
            advice="No merchant has a programme, so orders earn nothing: 'loyalty programs set MERCHANT "
            "--points-per-unit 1' ('loyalty programs list' names the merchants).",
        )
    return status


def _mapping(conn: Connection, row: Row) -> MappingStatus:
    try:
        mapping = parse_mapping(row.mapping_yaml)
    except SourceMappingError as error:
        return MappingStatus(
            applied_at=row.applied_at, applied_by=row.applied_by, problems=tuple(map(str, error.problems))
        )
    return MappingStatus(
        applied_at=row.applied_at,
        applied_by=row.applied_by,
        orders_relation=str(mapping.orders.relation),
        capture=str(mapping.capture),
        triggers=_triggers(conn, mapping),
    )


def _triggers(conn: Connection, mapping: SourceMapping) -> tuple[CaptureTrigger, ...]:
    installed = {
        (row.schema_name, row.table_name, row.trigger_name): row.is_enabled for row in conn.execute(ENABLED_TRIGGERS)
    }
    states = {True: TriggerState.ENABLED, False: TriggerState.DISABLED, None: TriggerState.MISSING}
    return tuple(
        CaptureTrigger(
            table=str(capture.part.relation),
            trigger=capture.trigger,
            state=states[installed.get(capture.place)],
        )
        for capture in captures_of(mapping, read_relations(conn, mapping))
    )


def _last(conn: Connection) -> LastBatch | None:
    row = conn.execute(LAST_BATCH).one_or_none()
    return None if row is None else LastBatch(**row._mapping)


def _queue(conn: Connection) -> tuple[QueuedReason, ...]:
    return tuple(QueuedReason(**row._mapping) for row in conn.execute(QUEUE))
