"""Source contracts, checked by Great Expectations: every condition is a query, and no table leaves PostgreSQL.

It takes two steps. The first asks of a whole view only what is met and what is not; the second asks again what is not
met, one by one, for the count and the keys of some rows. So the counts say what is true at the end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import great_expectations as gx
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from sqlalchemy import Connection, Engine

from loyalty_pipelines.db.engine import reading
from loyalty_pipelines.db.expiry import now
from loyalty_pipelines.db.sources import require_mapping
from loyalty_pipelines.domain.contracts import Checked, CheckedView, Contract, ContractError, Outcome, in_words
from loyalty_pipelines.domain.expectations import Expectation, Query
from loyalty_pipelines.domain.source_mapping import NoMappingError, SourceMapping
from loyalty_pipelines.resources.gx_view import GxView, ViewUnreadableError, config_of, is_broken, why_broken

SITE = "contracts"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What is the same for all views."""

    context: EphemeralDataContext
    engine: Engine
    mapping: SourceMapping | str
    as_of: datetime


def check_contracts(
    engine: Engine,
    contracts: Mapping[str, Contract | ContractError],
    *,
    as_of: datetime | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    docs: Path | None = None,
    on_view: Callable[[CheckedView], None] = lambda _: None,
) -> list[CheckedView]:
    """Check the contracts of views; a view that can't be checked says why, and the others are checked.

    `as_of`: the instant to compare times with; None: the database's time. `names`: only these expectations, by view.
    `docs`: a folder to write Great Expectations' Data Docs to. Raises DBAPIError when the server goes away.
    """
    with reading(engine) as conn:
        at, mapping = as_of or now(conn), _mapping(conn)
    checked = []
    with _great_expectations(docs) as context:
        run = _Run(context=context, engine=engine, mapping=mapping, as_of=at)
        for view, contract in contracts.items():
            found = _check_view(run, view, contract, None if names is None else names.get(view, ()))
            checked.append(found)
            on_view(found)
    return checked


def _mapping(conn: Connection) -> SourceMapping | str:
    """Return the mapping in force, or why there is none."""
    try:
        return require_mapping(conn)
    except NoMappingError as error:
        return str(error)


@contextmanager
def _great_expectations(docs: Path | None) -> Iterator[EphemeralDataContext]:
    """A context in memory: no project folder, no progress bars, nothing sent anywhere. Writes the docs at its end."""
    context = gx.get_context(mode="ephemeral")
    assert isinstance(context, EphemeralDataContext)
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    # Its own site would be in a folder of the system's.
    for site in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(site)
    if docs:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
        context.add_data_docs_site(
            SITE,
            {
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": store,
            },
        )
    yield context
    if docs:
        context.build_data_docs()


def _check_view(run: _Run, view: str, contract: Contract | ContractError, wanted: Sequence[str] | None) -> CheckedView:
    if isinstance(contract, ContractError):
        return CheckedView(view=view, file=contract.file, text=str(contract), problem=str(contract))
    expectations = [one for one in contract.expectations if wanted is None or one.name in wanted]
    reasons = {one.name: _why_not_asked(one, view, run.mapping) for one in expectations}
    asked = [one for one in expectations if not reasons[one.name]]
    found = {one.name: _without_rows(one, Outcome.SKIPPED, reasons[one.name]) for one in expectations}
    problem = None
    text = _why_skipped(view, run.mapping)
    if not text:
        try:
            with closing(GxView(run.context, run.engine, contract, run.as_of)) as gx_view:
                found.update(_check_expectations(run, gx_view, contract, asked))
        except ViewUnreadableError as error:
            problem = f"{view} can't be checked: {error}."
            found.update({one.name: _without_rows(one, Outcome.BROKEN, problem) for one in asked})
        met = sum(found[one.name].is_met for one in asked)
        text = problem or f"{met} of {len(asked)} expectations of {view} are met."
    return CheckedView(view=view, file=contract.file, text=text, problem=problem, results=tuple(found.values()))


def _check_expectations(
    run: _Run, gx_view: GxView, contract: Contract, expectations: Sequence[Expectation]
) -> dict[str, Checked]:
    if not expectations:
        return {}
    answer = gx_view.ask(expectations)
    by_name = {config_of(one).meta["name"]: one for one in answer.results}
    found = {}
    for one in expectations:
        if by_name[one.name].success:
            found[one.name] = _without_rows(one, Outcome.PASSED, "Met.")
            continue
        by_name[one.name], rows = gx_view.look_at(one)
        found[one.name] = _checked(contract, one, by_name[one.name], rows, gx_view.last_error())
    if run.context.list_data_docs_sites():
        _keep(run, contract.view, answer, [(by_name[one.name], found[one.name]) for one in expectations])
    return found


def _checked(
    contract: Contract,
    one: Expectation,
    result: ExpectationValidationResult,
    rows: Sequence[Mapping[str, Any]],
    error: str,
) -> Checked:
    if is_broken(result):
        return _without_rows(one, Outcome.BROKEN, f"It can't be checked: {error or why_broken(result)}.")
    if result.success:
        # Somebody corrected it between the two steps.
        return _without_rows(one, Outcome.PASSED, "Met.")
    numbers = one.numbers if isinstance(one, Query) else ()
    shown = [_shown(row, [name for name in contract.keys_of(one) if name in contract.ids], numbers) for row in rows]
    sample = tuple(dict(items) for items in dict.fromkeys(tuple(row.items()) for row in shown if row))
    bad, total = int(result.result["unexpected_count"]), int(result.result["element_count"])
    if one.keys:
        # Its rows are other things than those of the view, such as merchants.
        total = 0
    return Checked(
        name=one.name,
        severity=one.severity,
        outcome=Outcome.FAILED,
        text=_text(bad, total),
        rows=total,
        bad_rows=bad,
        percent=bad / total * 100 if total else 0.0,
        sample=sample,
    )


def _text(bad: int, total: int) -> str:
    """Return how many rows are bad; not which: the text leaves in alerts, the keys stay in the table."""
    return f"{bad:,} {'row does' if bad == 1 else 'rows do'} not meet it" + (f", of {total:,}." if total else ".")


def _shown(row: Mapping[str, Any], keys: Sequence[str], numbers: Sequence[str]) -> dict[str, Any]:
    """Return what may be shown of a row: ids, and numbers that the contract asks for."""
    shown: dict[str, Any] = {name: row.get(name) for name in keys if name in row}
    for name in numbers:
        if isinstance(row.get(name), (int, Decimal)):
            shown[name] = row[name] if isinstance(row[name], int) else float(row[name])
    return shown


def _without_rows(one: Expectation, outcome: Outcome, text: str) -> Checked:
    return Checked(name=one.name, severity=one.severity, outcome=outcome, text=text)


def _why_skipped(view: str, mapping: SourceMapping | str) -> str:
    """Return why nothing is asked of a view; empty: something is."""
    if isinstance(mapping, str):
        return f"Not checked. {mapping}"
    if view not in mapping.mapped_relations:
        return f"Not checked: the source mapping has no {view}, so the view is empty."
    return ""


def _why_not_asked(one: Expectation, view: str, mapping: SourceMapping | str) -> str:
    """Return why an expectation is not asked; empty: it is."""
    reason = _why_skipped(view, mapping)
    if reason or isinstance(mapping, str):
        return reason
    for other in one.views:
        if other not in mapping.mapped_relations:
            return f"Not checked: the source mapping has no {other} to compare with."
    part = mapping.relation(view)
    for column in one.needs:
        if part is not None and column not in part.columns and column not in part.defaults:
            return f"Not checked: the source mapping gives no {column} of {view}."
    return ""


def _keep(
    run: _Run,
    view: str,
    answer: ExpectationSuiteValidationResult,
    checked: Sequence[tuple[ExpectationValidationResult, Checked]],
) -> None:
    """Put the results of a view where the docs are built from, with keys in place of values."""
    for result, one in checked:
        for name in ("partial_unexpected_counts", "partial_unexpected_index_list"):
            result.result.pop(name, None)
        result.result["partial_unexpected_list"] = [in_words(row) for row in one.sample]
        if one.outcome is Outcome.BROKEN:
            # Great Expectations shows this; its own text has the statement and more.
            result.exception_info = {"raised_exception": True, "exception_message": one.text, "exception_traceback": ""}
    results = [result for result, _ in checked]
    met = sum(bool(one.success) for one in results)
    answer.results, answer.success = results, met == len(results)
    answer.statistics = {
        "evaluated_expectations": len(results),
        "successful_expectations": met,
        "unsuccessful_expectations": len(results) - met,
        "success_percent": met / len(results) * 100,
    }
    run_id = RunIdentifier(run_name=SITE, run_time=run.as_of)
    answer.meta["run_id"] = run_id
    run.context.suites.add(
        gx.ExpectationSuite(name=view, expectations=[config_of(one).to_domain_obj() for one in results])
    )
    key = ValidationResultIdentifier(
        expectation_suite_identifier=ExpectationSuiteIdentifier(view), run_id=run_id, batch_identifier=view
    )
    run.context.validation_results_store.set(key, answer)
