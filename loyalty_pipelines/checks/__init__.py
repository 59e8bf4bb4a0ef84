"""What is proved about the assets: one module per subject, as in `assets/`; each check is a sentence.

A check's description says what to do when it is red. Those that are errors are blocking, so that the run of their job
fails with them: it holds nothing else up.
"""

from loyalty_pipelines.checks.awards import (
    every_paid_order_has_its_points,
    few_orders_are_missing,
    no_order_is_awarded_twice,
    no_order_waits_long,
)
from loyalty_pipelines.checks.expiry import (
    expiry_plan_looks_normal,
    expiry_succeeded_lately,
    nobody_expired_unwarned,
)
from loyalty_pipelines.checks.mail_templates import every_template_override_renders
from loyalty_pipelines.checks.notifications import few_mails_fail, no_mail_waits_long
from loyalty_pipelines.checks.reconciliation_queue import few_updates_wait_in_the_queue
from loyalty_pipelines.checks.source_contracts import source_contracts

CHECKS = [
    no_order_is_awarded_twice,
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
    source_contracts,
]
