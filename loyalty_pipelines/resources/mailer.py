"""The way of mails out, as a Dagster resource."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from loyalty_pipelines.domain.mail_settings import MailSettings
    from loyalty_pipelines.domain.notifications import MailTransport


class Mailer(dg.ConfigurableResource):
    """Sends mails as LOYALTY_MAIL_URL, LOYALTY_MAIL_FROM and LOYALTY_MAIL_PER_MINUTE say.

    They are no fields: the URL has a password, and Dagster shows and stores the configuration of a resource.
    """

    # At most 30: the longest mail must be over before its lease is.
    timeout_seconds: int = Field(
        default=30, ge=1, le=30, description="How long the mail server may take for any one answer."
    )

    def settings(self) -> "MailSettings":
        """Return the settings; raise `MailNotConfiguredError`, or `MailSettingsError` for what can't be used."""
        from loyalty_pipelines.domain.mail_settings import mail_settings

        return mail_settings(os.environ)

    @contextmanager
    def open(self) -> Iterator[tuple["MailSettings", "MailTransport"]]:
        """The settings and a transport; it connects with the first mail, and is closed afterwards."""
        from loyalty_pipelines.resources.mail_transports import transport_for

        settings = self.settings()
        transport = transport_for(settings, timeout_seconds=self.timeout_seconds)
        try:
            yield settings, transport
        finally:
            transport.close()
