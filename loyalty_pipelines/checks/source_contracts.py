"""The shop's data is as its contracts expect: one check per expectation, from a YAML file per view."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from loyalty_pipelines.assets.awards import RETRY_TRANSIENT, retrying_only_what_passes
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.contracts import load_contracts
from loyalty_pipelines.domain.contracts import Checked, CheckedView, Contract, ContractError, Outcome, readable_check
from loyalty_pipelines.domain.expectations import Expectation, Severity
from loyalty_pipelines.resources.database import LedgerDatabase

RUNBOOK = "source-contracts"


def _asset(view: str) -> dg.AssetKey:
    return dg.AssetKey(["shop", view])


def _specs(contracts: Mapping[str, Contract | ContractError]) -> Iterator[dg.AssetCheckSpec]:
    for view, contract in contracts.items():
        yield dg.AssetCheckSpec(
            readable_check(view),
            asset=_asset(view),
            blocking=True,
            description=described(
                f"The contract of {view} is valid and the view loyalty_source.{view} can be read; otherwise none of "
                "its other checks says anything. Red: the result says what is wrong, in the file or in the database.",
                RUNBOOK,
                "A view that can't be checked",
            ),
        )
        if isinstance(contract, Contract):
            for one in contract.expectations:
                yield _spec(view, one)


def _spec(view: str, one: Expectation) -> dg.AssetCheckSpec:
    is_error = one.severity is Severity.ERROR
    return dg.AssetCheckSpec(
        one.name,
        asset=_asset(view),
        blocking=is_error,
        description=described(f"{one.says} {'Red' if is_error else 'Yellow'}: {one.do}", RUNBOOK, one.group.heading),
    )


def checks_of(contracts: Mapping[str, Contract | ContractError]) -> dg.AssetChecksDefinition:
    """Return the checks of contracts, all in one step."""

    @dg.multi_asset_check(
        name="source_contracts",
        specs=list(_specs(contracts)),
        description="Checks the shop's data against its contracts, with Great Expectations and in PostgreSQL.",
        can_subset=True,
        retry_policy=RETRY_TRANSIENT,
        pool="source_contracts",
    )
    def checks(context: dg.AssetCheckExecutionContext, ledger: LedgerDatabase) -> Iterator[dg.AssetCheckResult]:
        # Seconds: only the process that checks pays for it.
        from loyalty_pipelines.resources.source_contracts import check_contracts

        selected: dict[str, list[str]] = defaultdict(list)
        for key in context.selected_asset_check_keys:
            selected[key.asset_key.path[-1]].append(key.name)
        with retrying_only_what_passes(), ledger.engine() as engine:
            wanted = {view: contract for view, contract in contracts.items() if view in selected}
            checked = check_contracts(engine, wanted, names=selected)
        for view in checked:
            yield from _results(view, selected[view.view])

    return checks


def _results(checked: CheckedView, selected: Sequence[str]) -> Iterator[dg.AssetCheckResult]:
    if readable_check(checked.view) in selected:
        yield dg.AssetCheckResult(
            check_name=readable_check(checked.view),
            asset_key=_asset(checked.view),
            passed=checked.problem is None,
            severity=dg.AssetCheckSeverity.ERROR,
            description=checked.text,
            metadata={"contract": checked.file, "expectations": len(checked.results)},
        )
    for one in checked.results:
        yield _result(checked, one)


def _result(checked: CheckedView, one: Checked) -> dg.AssetCheckResult:
    # Where a view can't be read, its check of that says so, in red, and the rest is no second problem. Where it can,
    # what could not be checked is no better than an error, as on the command line.
    is_error = checked.problem is None and (one.severity is Severity.ERROR or one.outcome is Outcome.BROKEN)
    return dg.AssetCheckResult(
        check_name=one.name,
        asset_key=_asset(checked.view),
        passed=one.is_met,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=one.text,
        metadata={
            "rows that don't meet it": one.bad_rows,
            "percent": one.percent,
            "was checked": one.outcome in (Outcome.PASSED, Outcome.FAILED),
            "contract": checked.file,
            **({"keys": _table(one)} if one.sample else {}),
        },
    )


def _table(one: Checked) -> dg.TableMetadataValue:
    """Return the keys of some of the rows as a table."""
    kinds = {int: "int", float: "float"}
    return dg.MetadataValue.table(
        records=[dg.TableRecord(dict(row)) for row in one.sample],
        schema=dg.TableSchema(
            columns=[dg.TableColumn(name, kinds.get(type(value), "string")) for name, value in one.sample[0].items()]
        ),
    )


# Read when the code location is loaded: what is checked is what the UI lists.
source_contracts = checks_of(load_contracts())
