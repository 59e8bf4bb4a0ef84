"""What is proved about the assets: one module per subject, as in `assets/`; each check is a sentence.

A check's description says what to do when it is red. Those that are errors are blocking, so that the run of their job
fails with them: it holds nothing else up.
"""

from loyalty_pipelines.checks.alerts import alert_channels_work
from loyalty_pipelines.checks.awards import (
    every_paid_order_has_its_points,
    few_orders_are_missing,
    no_order_waits_long,
)
from loyalty_pipelines.checks.expiry import (
    expiry_plan_looks_normal,
    expiry_succeeded_lately,
    nobody_expired_unwarned,
)
from loyalty_pipelines.checks.integrity import every_merchant_was_proved_lately, integrity_findings
from loyalty_pipelines.checks.mail_templates import every_template_override_renders
from loyalty_pipelines.checks.notifications import few_mails_fail, no_mail_waits_long
from loyalty_pipelines.checks.reconciliation_queue import few_updates_wait_in_the_queue
from loyalty_pipelines.checks.reports import liability_equals_the_sum_of_balances
from loyalty_pipelines.checks.source_contracts import source_contracts
from loyalty_pipelines.checks.subscriptions import every_merchant_was_compared_lately, subscription_findings

CHECKS = [
    every_paid_order_has_its_points,
    no_order_waits_long,
    few_orders_are_missing,
    few_updates_wait_in_the_queue,
    expiry_plan_looks_normal,
    expiry_succeeded_lately,
    nobody_expired_unwarned,
    no_mail_waits_long,
    few_mails_fail,
    every_template_override_renders,
    integrity_findings,
    every_merchant_was_proved_lately,
    liability_equals_the_sum_of_balances,
    alert_channels_work,
    source_contracts,
    subscription_findings,
    every_merchant_was_compared_lately,
]
