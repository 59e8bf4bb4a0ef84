"""The way of alerts out, as a Dagster resource."""

import os
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from loyalty_pipelines.domain.alert_messages import AlertChannel
    from loyalty_pipelines.domain.alert_settings import AlertSettings
    from loyalty_pipelines.domain.alert_table import AlertTable


class Alerter(dg.ConfigurableResource):
    """Sends alerts as the LOYALTY_ALERT_* variables say, graded by the table in docs/alerts.md.

    They are no fields: the addresses of webhooks are secrets, and Dagster shows and stores the configuration of a
    resource.
    """

    def settings(self) -> "AlertSettings":
        """Return what can be used of the settings, and what is wrong with the rest."""
        from loyalty_pipelines.domain.alert_settings import alert_settings

        return alert_settings(os.environ)

    def channels(self, settings: "AlertSettings") -> "dict[str, AlertChannel]":
        """Return the channels that can be used, by name."""
        from loyalty_pipelines.resources.alert_channels import channels_for

        return channels_for(settings)

    def table(self) -> "AlertTable":
        """Return the table in docs/alerts.md; raise `AlertTableError` when it can't be used."""
        from loyalty_pipelines.resources.alert_table import read_alert_table

        return read_alert_table()
