"""One source view as Great Expectations reads it. Importing this module imports Great Expectations: seconds."""

import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import great_expectations as gx
from great_expectations import expectations as gxe
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
from great_expectations.datasource.fluent.interfaces import GxDatasourceWarning, TestConnectionError
from great_expectations.expectations.core.unexpected_rows_expectation import UnexpectedRowsExpectation
from great_expectations.expectations.row_conditions import Column
from psycopg.types.numeric import FloatDumper
from pydantic.v1 import validator
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_connection_loss
from loyalty_pipelines.domain.contracts import SAMPLE, Contract
from loyalty_pipelines.domain.expectations import SCHEMA, Expectation, Query, Severity, UniqueTogether

# What failed is in its results; its log would repeat statements and values.
logging.getLogger("great_expectations").setLevel(logging.CRITICAL)

SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "warning"}
LOCK_TIMEOUT = "5s"
# PostgreSQL quotes the value in the texts of data exceptions, and the shop's functions may say anything.
DATA_EXCEPTION = "22"
UNDEFINED_TABLE = "42P01"
RAISED_BY_THE_SHOP = ("P0", "38", "39")
QUOTED = re.compile(r'"[^"]*"')


class ViewUnreadableError(Exception):
    """The view can't be read at all."""


class UnexpectedRows(UnexpectedRowsExpectation):
    """Counts the rows of a query that should return none; the expectation that ships fetches all of them for that."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ("unexpected_rows_query.row_count", "table.row_count")

    @validator("unexpected_rows_query")
    def _validate_query(cls, query: str) -> str:  # noqa: N805 - a class method for pydantic's first version
        # In place of the inherited one, which prints something when a query names its view itself. Ours do: what Great
        # Expectations puts in for {batch} has an alias of its own or none, as the words of the query will have it.
        return query

    def _validate(self, metrics: dict, *_: Any, **__: Any) -> dict[str, Any]:
        bad, rows = metrics["unexpected_rows_query.row_count"], metrics["table.row_count"]
        percent = bad / rows * 100 if rows else 0.0
        return {
            "success": bad == 0,
            "result": {"element_count": rows, "unexpected_count": bad, "unexpected_percent": percent},
        }


class SampleOfUnexpectedRows(UnexpectedRows):
    """Fetches the rows of a query, which has a limit."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ("unexpected_rows_query.table",)

    def _validate(self, metrics: dict, *_: Any, **__: Any) -> dict[str, Any]:
        return {"success": True, "result": {"details": {"rows": metrics["unexpected_rows_query.table"]}}}


class _Numeric(FloatDumper):
    """Sends bounds as numeric: compared with a float, an amount of 400 digits is an error instead of too large."""

    oid = 1700


class GxView:
    """One view with its contract. Raises ViewUnreadableError, and DBAPIError when the server can't be reached."""

    def __init__(self, context: EphemeralDataContext, engine: Engine, contract: Contract, as_of: datetime) -> None:
        self._contract, self._as_of = contract, as_of
        self._errors: list[BaseException] = []
        self._engines: list[Engine] = []
        try:
            self._batch = self._open(context, engine)
        except TestConnectionError as error:
            self.close()
            if isinstance(error.__cause__, DBAPIError):
                self._errors.append(error.__cause__)
            self.raise_when_gone()
            raise ViewUnreadableError(self.last_error() or "PostgreSQL does not say why") from error

    def _open(self, context: EphemeralDataContext, engine: Engine) -> Any:
        with warnings.catch_warnings():
            # Of the class that takes our connections, and of the schema's name, for which it has no other place.
            warnings.filterwarnings("ignore", category=GxDatasourceWarning)
            warnings.filterwarnings("ignore", "`schema_name` is deprecated", DeprecationWarning)
            return self._batch_of(context, engine)

    def _batch_of(self, context: EphemeralDataContext, engine: Engine) -> Any:
        view = self._contract.view
        # The connections are ours: no URL, and no password in it, gets into Great Expectations and what it renders.
        options = {"creator": _read_only(engine)}
        source = context.data_sources.add_sql(
            view,
            connection_string="postgresql+psycopg://",
            kwargs=options,  # pyright: ignore[reportCallIssue] - its stub lacks it
        )
        self._engines.extend((source.get_engine(), source.get_execution_engine().engine))
        for one in self._engines:
            event.listen(one, "handle_error", self._note)
        asset = source.add_table_asset(view, table_name=view, schema_name=SCHEMA)
        return asset.add_batch_definition_whole_table("all rows").get_batch()

    def close(self) -> None:
        """Close its connections."""
        for one in self._engines:
            one.dispose()

    def ask(self, expectations: Sequence[Expectation]) -> ExpectationSuiteValidationResult:
        """Return for each expectation whether it is met: no counts and no rows. Mostly one scan of the view."""
        suite = gx.ExpectationSuite(
            name=self._contract.view, expectations=[self._translated(one) for one in expectations]
        )
        result = self._batch.validate(suite, result_format="BOOLEAN_ONLY")
        self.raise_when_gone()
        return result

    def look_at(self, one: Expectation) -> tuple[ExpectationValidationResult, list[Mapping[str, Any]]]:
        """Return the result of one expectation with its counts, and some of the rows that fail it."""
        self._errors.clear()
        result = self._batch.validate(
            self._translated(one),
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": SAMPLE,
                "unexpected_index_column_names": list(self._contract.keys_of(one)),
                # The values of a compound are ids, those of a column may be anything.
                "exclude_unexpected_values": not isinstance(one, UniqueTogether),
                "return_unexpected_index_query": False,
            },
        )
        rows = [] if result.success or is_broken(result) else self._rows(one, result.result)
        self.raise_when_gone()
        return result, rows

    def raise_when_gone(self) -> None:
        """Raise when the server went away: then it is not the data that is wrong."""
        for error in self._errors:
            if is_connection_loss(error):
                raise error

    def last_error(self) -> str:
        """Return what PostgreSQL said last, without values of the shop; empty: nothing."""
        if not self._errors:
            return ""
        error = self._errors[-1]
        code = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
        if code == UNDEFINED_TABLE:
            return f"{short_text(error)}; 'loyalty sources apply' makes the views"
        if code.startswith(RAISED_BY_THE_SHOP):
            return f"the shop's own code raised an error (SQLSTATE {code}) when the view was read"
        text = short_text(error) if isinstance(error, DBAPIError) else type(error).__name__
        return QUOTED.sub('"..."', text) if code.startswith(DATA_EXCEPTION) else text

    def _note(self, context: Any) -> None:
        self._errors.append(context.sqlalchemy_exception or context.original_exception)

    def _translated(self, one: Expectation) -> Any:
        kind: Any = UnexpectedRows if isinstance(one, Query) else _class_of(one)
        values: dict[str, Any] = (
            {"unexpected_rows_query": self._query(one)} if isinstance(one, Query) else one.values(self._as_of)
        )
        conditions = [Column(name).is_in(list(words)) for name, words in one.conditions.items()]
        if conditions:
            values["row_condition"] = conditions[0]
            for other in conditions[1:]:
                values["row_condition"] &= other
        return kind(
            **values, severity=SEVERITIES[one.severity], description=one.says, notes=one.do, meta={"name": one.name}
        )

    def _query(self, one: Query) -> str:
        query = one.values(self._as_of)["unexpected_rows_query"].replace("{batch}", f"{SCHEMA}.{self._contract.view}")
        # It is put into parentheses: a comment in its last line must not take the second one.
        return f"{query}\n"

    def _rows(self, one: Expectation, result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if isinstance(one, Query):
            limited = f"SELECT * FROM (\n{self._query(one)}\n) AS unexpected LIMIT {SAMPLE}"  # noqa: S608 - the operator's own
            found = self._batch.validate(
                SampleOfUnexpectedRows(unexpected_rows_query=limited), result_format="SUMMARY"
            ).result.get("details", {})
            return found.get("rows", [])
        if isinstance(one, UniqueTogether):
            return result.get("partial_unexpected_list") or []
        # One list of values per column.
        columns = (result.get("partial_unexpected_index_list") or [{}])[0]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def config_of(result: ExpectationValidationResult) -> Any:
    """Return what the result is about, which Great Expectations always knows."""
    assert result.expectation_config is not None
    return result.expectation_config


def is_broken(result: ExpectationValidationResult) -> bool:
    """Whether the expectation could not be checked."""
    return bool(why_broken(result))


def why_broken(result: ExpectationValidationResult) -> str:
    """Return the text of what went wrong in Great Expectations itself; empty: nothing did."""
    info: Mapping[str, Any] = result.exception_info or {}
    # Of one exception, or one for each metric that failed.
    for one in (info, *info.values()):
        if isinstance(one, Mapping) and one.get("raised_exception"):
            return str(one.get("exception_message") or "no text").strip().splitlines()[0]
    return ""


def _class_of(one: Expectation) -> Any:
    """Return Great Expectations' class for expect_column_values_to_be_between: ExpectColumnValuesToBeBetween."""
    return getattr(gxe, "".join(word.capitalize() for word in one.type.split("_")))


def _read_only(engine: Engine) -> Callable[[], Any]:
    """Return what opens a connection like those of the engine, on which nothing can be written."""

    def opened() -> Any:
        checked_out = engine.raw_connection()
        checked_out.detach()
        connection: Any = checked_out.dbapi_connection
        # A migration of the shop's holds a view for long: better to say so than to wait for every query of it.
        connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        connection.commit()
        connection.read_only = True
        connection.adapters.register_dumper(float, _Numeric)
        return connection

    return opened
