"""Where reports go, as a Dagster resource."""

import os
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from loyalty_pipelines.resources.report_store import ReportStore


class Reports(dg.ConfigurableResource):
    """Writes reports where LOYALTY_REPORTS_URL says: a folder, or a bucket's URL; else to `reports` in LOYALTY_HOME.

    It is no field: the URL may have a password, and Dagster shows and stores the configuration of a resource.
    """

    def store(self) -> "ReportStore":
        """Return where reports go; raise `ReportsUrlError` for a place that can't be used."""
        from loyalty_pipelines import embedded
        from loyalty_pipelines.resources.report_store import report_store

        return report_store(os.environ, home=embedded.home())
