"""The product's definitions and an empty job beside them, so that both start in the same code location."""

import dagster as dg

from loyalty_pipelines import definitions as product


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job(executor_def=dg.in_process_executor)
def empty_job() -> None:
    """Do nothing, as a run."""
    nothing()


defs = dg.Definitions.merge(product.defs, dg.Definitions(jobs=[empty_job]))
