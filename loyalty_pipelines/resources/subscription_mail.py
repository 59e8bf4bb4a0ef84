"""Sends the daily summary of payments and subscriptions, once a day. No Dagster."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loyalty_pipelines.db.subscription_report import finish_mail, lease_mail
from loyalty_pipelines.domain.alert_messages import ChannelError
from loyalty_pipelines.domain.alert_settings import EMAIL, EMAIL_VARIABLE, AlertSettings
from loyalty_pipelines.domain.subscription_mails import summary_mail
from loyalty_pipelines.resources.alert_channels import channels_for

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from loyalty_pipelines.domain.subscription_report import SubscriptionReport


@dataclass(frozen=True, kw_only=True)
class MailOutcome:
    """What became of a day's mail, in words; `is_failed`: it should have gone out and did not, or not to everybody."""

    text: str
    is_failed: bool = False


def mail_summary(
    engine: "Engine", report: "SubscriptionReport", settings: AlertSettings, *, place: str, run_id: str | None
) -> MailOutcome:
    """Send the mail of the report's day to the addresses that alerts go to, unless it was sent.

    No transaction is open while the mail server is talked to. What it does not take is sent by the day's next run.
    """
    on = report.days[-1]
    channel = channels_for(settings).get(EMAIL)
    if channel is None:
        problems = [one for one in settings.problems if EMAIL_VARIABLE in one]
        if problems:
            return MailOutcome(text=f"not sent: {' '.join(problems)}", is_failed=True)
        return MailOutcome(text=f"not sent: {EMAIL_VARIABLE} is not set")
    if not lease_mail(engine, on=on, run_id=run_id):
        return MailOutcome(text=f"not sent: that of {on.isoformat()} was sent before")
    try:
        refused = channel.send(summary_mail(report, links=settings.links, place=place))
    except ChannelError as error:
        finish_mail(engine, on=on, failure=str(error))
        return MailOutcome(text=f"not sent, the next run of the day tries again: {error}", is_failed=True)
    except BaseException as error:
        finish_mail(engine, on=on, failure=type(error).__name__)
        raise
    finish_mail(engine, on=on, failure=None)
    if refused:
        return MailOutcome(text=f"sent, but not to everybody: {refused}", is_failed=True)
    return MailOutcome(text=f"sent to {len(settings.mail_to)} addresses")
