"""The daily summary of payments and subscriptions, as a mail."""

from hashlib import sha256

from loyalty_pipelines.domain.alert_messages import Links, Message, span
from loyalty_pipelines.domain.money import amount_text, money_text
from loyalty_pipelines.domain.subscription_report import (
    REPORT,
    ClassLine,
    SubscriptionReport,
    classes_together,
)

ASSET_PAGE = f"/assets/loyalty/{REPORT}"
RUNBOOK = "runbooks/subscriptions.md"
MERCHANTS_NAMED = 20
POLICIES = (
    "Policy: A is put right by 'loyalty subscriptions apply' (or fix_subscriptions_schedule, if it is on), P after a "
    "person has approved its plan, H by a person only."
)


def summary_mail(report: SubscriptionReport, *, links: Links, place: str) -> Message:
    """Return the mail about a day's report; `place` is where its page was written. Ids and numbers only."""
    day_on = report.days[-1]
    subject = (
        f"Payments and subscriptions: {money_text(report.money)} at risk, {_counted(report.open_findings, 'finding')} "
        f"({report.new_findings:,} new)"
    )
    lines = [
        f"{subject}.",
        f"As of {report.as_of:%Y-%m-%d %H:%M} UTC, {_counted(len(report.merchants), 'merchant')}. In the last day: "
        f"{report.new_findings:,} new, {report.closed_findings:,} closed, {_counted(len(report.fixes), 'fix', 'es')}.",
        "",
    ]
    classes = [one for one in classes_together(report.classes) if one.findings or one.closed_findings]
    lines += [_class_text(one, report) for one in classes] or ["Nothing is open."]
    if classes:
        lines += ["", POLICIES, *report.without_plans]
    failed = [one.merchant_id for one in report.merchants if one.failure]
    if failed:
        more = f" and {len(failed) - MERCHANTS_NAMED} more" if len(failed) > MERCHANTS_NAMED else ""
        lines += ["", f"Could not be compared: {', '.join(failed[:MERCHANTS_NAMED])}{more}."]
    lines += ["", f"The report: {place}", f"What to do: {links.to_runbook(RUNBOOK)}"]
    if page := links.to_dagster(ASSET_PAGE):
        lines.append(f"In Dagster: {page}")
    text = "\n".join(lines) + "\n"
    return Message(
        subject=subject,
        text=text,
        slack=text,
        short=subject,
        document={},
        # The same for each attempt of a day: its Message-ID is made of it.
        key=sha256(f"{REPORT} {day_on.isoformat()}".encode()).hexdigest()[:32],
        at=report.as_of,
    )


def _class_text(one: ClassLine, report: SubscriptionReport) -> str:
    text = f"{one.class_name} ({one.severity}, policy {one.policy or '-'}): {_counted(one.findings, 'finding')}"
    if one.amount:
        text += f", {amount_text(one.amount, one.currency)}"
    text += f", {one.new_findings:,} new, {one.closed_findings:,} closed"
    return text + (f", oldest {span(report.as_of - one.first_seen_at)}" if one.first_seen_at else "")


def _counted(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else ending}"
