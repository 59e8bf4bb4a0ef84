"""Checks the contracts as a run worker does, in a process of its own; prints seconds, results and peak memory."""

import json
import resource
import sys
import time


def main() -> None:
    """Check the contract of orders, then those of all views, in the database `argv[1]`."""
    from loyalty_pipelines.contracts import load_contracts
    from loyalty_pipelines.db.engine import connect
    from loyalty_pipelines.definitions import defs

    # The code location is loaded as in a worker, so that the peak is a worker's.
    defs.resolve_job_def("source_contracts_job")
    started = time.monotonic()
    from loyalty_pipelines.resources.source_contracts import check_contracts

    importing = time.monotonic() - started
    after_import = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    engine = connect(sys.argv[1])
    contracts = load_contracts()
    started = time.monotonic()
    (orders,) = check_contracts(engine, {"orders": contracts["orders"]})
    orders_seconds = time.monotonic() - started
    started = time.monotonic()
    views = check_contracts(engine, contracts)
    assert orders.problem is None, orders.problem
    print(
        json.dumps(
            {
                "import_seconds": importing,
                "orders_seconds": orders_seconds,
                "all_seconds": time.monotonic() - started,
                "memory_after_import_mb": after_import,
                "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "bad_rows": {one.name: one.bad_rows for one in orders.results if not one.is_met},
                "outcomes": [f"{view.view}: {view.text}" for view in views],
            }
        )
    )


if __name__ == "__main__":
    main()
