"""Runs award_points_job as a run worker does, in a process of its own; prints seconds, orders and peak memory."""

import json
import os
import resource
import sys
import time


def main() -> None:
    """Award what waits in the database `argv[1]` over `argv[2]` connections."""
    os.environ["LOYALTY_DATABASE_URL"] = sys.argv[1]
    import dagster as dg

    from loyalty_pipelines.db.drain import DrainOptions, drain
    from loyalty_pipelines.db.engine import connect
    from loyalty_pipelines.definitions import defs

    # The job's code location is loaded as in a worker, so that the peak is a worker's; the seconds are the job's work.
    defs.resolve_job_def("award_points_job")
    assert dg.__version__
    connections = int(sys.argv[2])
    engine = connect(sys.argv[1], pool_size=connections)
    started = time.monotonic()
    report = drain(engine, options=DrainOptions(connections=connections), actor="benchmark")
    seconds = time.monotonic() - started
    assert not report.failures, report.failures
    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "orders": report.total("orders_changed"), "memory_mb": memory_kb / 1024}))


if __name__ == "__main__":
    main()
