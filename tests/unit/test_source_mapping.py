"""What a mapping file may say, and what the operator reads when it says something else."""

import pytest

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.source_mapping import (
    SOURCE_RELATIONS,
    CaptureMode,
    FixedMerchants,
    MappingProblem,
    SourceMappingError,
    parse_mapping,
)
from loyalty_pipelines.presets import PRESETS, read_preset

SMALL = """\
version: 1
merchants: {rows: [{merchant_id: main, name: My shop, timezone: UTC, currency: EUR}]}
orders:
  relation: public.orders
  columns: {order_id: id, customer_id: customer, total_amount: total, status: s, paid_at: p, updated_at: u}
  status: {paid: [paid]}
  defaults: {merchant_id: main, currency: EUR}
"""


def problems_in(text: str) -> list[MappingProblem]:
    with pytest.raises(SourceMappingError) as caught:
        parse_mapping(text)
    return list(caught.value.problems)


def the_problem_in(text: str) -> MappingProblem:
    problems = problems_in(text)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_mapping(preset: str):
    mapping = parse_mapping(read_preset(preset))
    assert "orders" in mapping.mapped_relations
    assert mapping.yaml_text == read_preset(preset)


def test_an_unknown_preset_names_those_that_exist():
    with pytest.raises(LoyaltyError, match="django_shop"):
        read_preset("magento")


def test_the_fields_are_those_of_the_design_in_its_order():
    shapes = {name: " ".join(relation.field_names) for name, relation in SOURCE_RELATIONS.items()}
    assert shapes == {
        "merchants": "merchant_id name timezone currency locale is_active",
        "customers": "merchant_id customer_id email name locale store_id created_at is_active",
        "orders": "merchant_id order_id order_number customer_id store_id total_amount points_redeemed"
        " currency status paid_at updated_at plan_id discount_amount points_discount_amount",
        "refunds": "merchant_id refund_id order_id amount refunded_at",
        "payments": "merchant_id payment_id order_id subscription_id customer_id amount refunded_amount"
        " currency status captured_at period_start period_end plan_id created_at updated_at",
        "subscriptions": "merchant_id subscription_id customer_id plan_id order_id status amount currency"
        " current_period_start current_period_end cancelled_at is_complimentary created_at updated_at",
        "plans": "merchant_id plan_id name amount currency interval allows_multiple",
    }


def test_a_small_mapping_has_the_documented_defaults():
    mapping = parse_mapping(SMALL)
    assert (mapping.capture, mapping.poll_overlap_seconds, mapping.timezone) == (
        CaptureMode.TRIGGER,
        600,
        "UTC",
    )
    assert mapping.mapped_relations == ("merchants", "orders")
    assert isinstance(mapping.merchants, FixedMerchants)
    assert mapping.merchants.rows[0].locale == "en"


@pytest.mark.parametrize(
    ("relation", "schema", "table"),
    [
        ("orders", "public", "orders"),
        ("Shop.Orders", "Shop", "Orders"),
        ('{schema: "My Schema", table: "Orders.2024"}', "My Schema", "Orders.2024"),
        ('{table: "Orders.2024"}', "public", "Orders.2024"),
    ],
)
def test_a_relation_is_written_with_or_without_its_schema(relation: str, schema: str, table: str):
    name = parse_mapping(SMALL.replace("public.orders", relation)).orders.relation
    assert (name.schema_name, name.table) == (schema, table)


def test_a_relation_with_two_dots_asks_for_the_long_form():
    problem = the_problem_in(SMALL.replace("public.orders", "shop.public.orders"))
    assert problem.path == "orders.relation"
    assert "schema: ..." in str(problem)


def test_words_stay_the_texts_that_were_written():
    text = SMALL.replace("paid: [paid]", "paid: [yes, 1, no, null-ish, 2024-01-01]")
    assert parse_mapping(text).orders.status["paid"] == ("yes", "1", "no", "null-ish", "2024-01-01")
    norwegian = SMALL.replace("currency: EUR}]", "currency: EUR, locale: no}]")
    merchants = parse_mapping(norwegian).merchants
    assert isinstance(merchants, FixedMerchants) and merchants.rows[0].locale == "no"


def test_one_word_needs_no_list():
    assert parse_mapping(SMALL.replace("[paid]", "done")).orders.status["paid"] == ("done",)


def test_an_unknown_key_names_its_line_the_known_ones_and_the_nearest():
    problem = the_problem_in(SMALL + "costumers: {relation: x, columns: {}}\n")
    assert (problem.path, problem.line) == ("costumers", 8)
    assert "customers" in problem.exists
    assert problem.advice == 'did you mean "customers"'
    inner = the_problem_in(SMALL.replace("  defaults:", "  default:"))
    assert "orders.default" in [inner.path] and inner.advice == 'did you mean "defaults"'


def test_an_unknown_field_names_the_nearest_field():
    problems = problems_in(SMALL.replace("total_amount: total", "total_amuont: total"))
    assert [problem.path for problem in problems] == [
        "orders.columns.total_amuont",
        "orders.columns.total_amount",
    ]
    assert problems[0].advice == 'did you mean "total_amount"'
    assert "points_redeemed" in problems[0].exists
    assert problems[0].line == 5


def test_every_missing_required_field_is_named_at_once():
    text = SMALL.replace("order_id: id, customer_id: customer, ", "").replace("merchant_id: main, currency", "currency")
    paths = [problem.path for problem in problems_in(text)]
    assert paths == ["orders.columns.merchant_id", "orders.columns.order_id", "orders.columns.customer_id"]


def test_refunds_without_a_merchant_are_told_about_views_and_polling():
    text = SMALL + "refunds: {relation: r, columns: {refund_id: a, order_id: b, amount: c, refunded_at: d}}\n"
    problem = the_problem_in(text)
    assert problem.path == "refunds.columns.merchant_id"
    assert "view" in problem.advice and "poll" in problem.advice


def test_an_unknown_status_names_the_nearest():
    problem = the_problem_in(SMALL.replace("{paid: [paid]}", "{paid: [paid], canceled: [c]}"))
    assert problem.path == "orders.status.canceled"
    assert problem.advice == 'did you mean "cancelled"'
    assert "partially_refunded" in problem.exists


def test_a_word_cannot_have_two_meanings():
    problem = the_problem_in(SMALL.replace("{paid: [paid]}", "{paid: [done], pending: [new, done]}"))
    assert problem.path == "orders.status.pending"
    assert '"done" under paid and under pending' in problem.found


@pytest.mark.parametrize("status", ["{}", "{paid: []}", "{pending: [new]}"])
def test_a_shop_without_a_word_for_paid_is_refused(status: str):
    assert the_problem_in(SMALL.replace("{paid: [paid]}", status)).path == "orders.status.paid"


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("currency: EUR}\n", "currency: euro}\n", "orders.defaults.currency"),
        ("currency: EUR}\n", "currency: EUR, points_redeemed: '-1'}\n", "orders.defaults.points_redeemed"),
        ("currency: EUR}\n", "currency: EUR, points_redeemed: '1.5'}\n", "orders.defaults.points_redeemed"),
        (
            "currency: EUR}\n",
            f"currency: EUR, points_redeemed: '{'9' * 5000}'}}\n",
            "orders.defaults.points_redeemed",
        ),
        ("currency: EUR}\n", "currency: EUR, total_amount: NaN}\n", "orders.defaults.total_amount"),
        ("currency: EUR}\n", "currency: EUR, total_amount: '1e30'}\n", "orders.defaults.total_amount"),
        ("currency: EUR}\n", "currency: EUR, order_id: '1'}\n", "orders.defaults.order_id"),
        ("currency: EUR}\n", "currency: EUR, status: paid}\n", "orders.defaults.status"),
        ("currency: EUR}\n", "currency: EUR, paid_at: '2024-01-01'}\n", "orders.defaults.paid_at"),
        (
            "merchant_id: main, currency: EUR}\n",
            "merchant_id: mian, currency: EUR}\n",
            "orders.defaults.merchant_id",
        ),
        ("  status:", "  divide_by: {points_redeemed: 100}\n  status:", "orders.divide_by.points_redeemed"),
        ("  status:", "  where: {kind: []}\n  status:", "orders.where.kind"),
    ],
)
def test_a_value_that_cannot_be_right_is_named_by_its_path(old: str, new: str, path: str):
    assert path in [problem.path for problem in problems_in(SMALL.replace(old, new))]


def test_amounts_are_divided_by_powers_of_ten_only():
    problem = the_problem_in(SMALL.replace("  status:", "  divide_by: {total_amount: 7}\n  status:"))
    assert problem.path == "orders.divide_by.total_amount"
    assert "100" in problem.exists


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("version: 1", "version: 2", "version"),
        ("version: 1", "version: 1\ncapture: magic", "capture"),
        ("version: 1", "version: 1\npoll_overlap_seconds: -5", "poll_overlap_seconds"),
        ("currency: EUR}]", "currency: Euros}]", "merchants.rows[0].currency"),
        ("currency: EUR}]", "currency: EUR, curency: EUR}]", "merchants.rows[0].curency"),
        ("  relation: public.orders\n", "", "orders.relation"),
        ("  relation: public.orders\n", "  relation:\n", "orders.relation"),
        ("[paid]", "[[paid]]", "orders.status.paid[0]"),
    ],
)
def test_a_wrong_shape_is_named_by_its_path(old: str, new: str, path: str):
    assert the_problem_in(SMALL.replace(old, new)).path == path


def test_two_merchants_with_one_id_are_refused():
    row = "{merchant_id: main, name: My shop, timezone: UTC, currency: EUR}"
    assert the_problem_in(SMALL.replace(row, f"{row}, {row}")).path == "merchants.rows[1].merchant_id"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "empty file"),
        ("- a\n- b\n", "list"),
        ("just words", "str"),
        ("a: [", "expected"),
        (SMALL + "version: 1\n", "twice"),
        ("a: &x 1\nb: *x\n", "alias"),
        ("a: &x [*x]\n", "alias"),
        ("? [a]\n: b\n", "key that is not a text"),
        ("a: \x07", "characters"),
        ("[" * 1000 + "]" * 1000, "deep"),
        ("#" * 1_000_001, "1000001 characters"),
    ],
)
def test_a_text_that_is_no_mapping_is_an_error_with_a_reason(text: str, found: str):
    assert found in the_problem_in(text).found


@pytest.mark.parametrize("word", [r'"a\0b"', r'"\ud800"'])
def test_texts_that_postgresql_cannot_hold_are_refused(word: str):
    problem = the_problem_in(SMALL.replace("[paid]", f"[{word}]"))
    assert problem.path == "orders.status.paid[0]"


def test_names_that_look_like_sql_are_names():
    hostile = """'"; DROP TABLE x; --'"""
    mapping = parse_mapping(SMALL.replace("total_amount: total", f"total_amount: {hostile}"))
    assert mapping.orders.columns["total_amount"] == '"; DROP TABLE x; --'


def test_the_error_lists_every_problem_in_lines_that_say_what_to_do():
    with pytest.raises(SourceMappingError) as caught:
        parse_mapping(SMALL.replace("[paid]", "[]").replace("order_id: id, ", ""))
    lines = str(caught.value).splitlines()
    assert lines[0] == "The source mapping has 2 problems:"
    assert lines[1].startswith("- orders.columns.order_id (line 5): found nothing; name its column in")


# --- fixes ----------------------------------------------------------------------------------------------

SUBSCRIPTIONS = (
    "\nsubscriptions:\n  relation: subscription\n"
    "  columns: {subscription_id: id, customer_id: c, plan_id: p, status: s, created_at: t}\n"
    "  status: {active: [on]}\n  defaults: {merchant_id: main}\n"
)


def test_without_a_section_nothing_may_be_fixed():
    assert parse_mapping(SMALL).fixes is None


def test_each_action_is_written_or_a_function_of_the_shop():
    text = (
        "fixes:\n  create_subscription: write\n"
        "  update_subscription: {function: billing.change_subscription}\n"
        '  refund_payment: {function: {schema: "My Schema", name: refund.now}}\n'
    )
    fixes = parse_mapping(SMALL + SUBSCRIPTIONS + text).fixes
    assert fixes is not None and tuple(fixes.actions) == (
        "create_subscription",
        "update_subscription",
        "refund_payment",
    )
    assert fixes.is_written("create_subscription") and not fixes.is_written("update_subscription", "refund_payment")
    assert str(fixes.actions["update_subscription"].function) == "billing.change_subscription"
    assert str(fixes.actions["refund_payment"].function) == "My Schema.refund.now"
    assert fixes.ask_payment is None


@pytest.mark.parametrize(
    ("written", "path", "words"),
    [
        ("refund_payment: write", "fixes.refund_payment", "name a function"),
        ("ask_payment: write", "fixes.ask_payment", "name a function"),
        ("create_subscription: guess", "fixes.create_subscription", "expected write, or {function: schema.name}"),
        ("create_subscription: {function: }", "fixes.create_subscription", "expected write, or"),
        ("create_subscription: {function: refund}", "fixes.create_subscription.function", "expected schema.name"),
        ("create_subscription: {function: a.b.c}", "fixes.create_subscription.function", "expected schema.name"),
        ("create_subscription: {call: a.b}", "fixes.create_subscription.call", "keys here are function"),
        ("create_subscriptions: write", "fixes.create_subscriptions", 'did you mean "create_subscription"'),
    ],
)
def test_a_fix_that_cannot_be_is_named_by_its_path(written: str, path: str, words: str):
    problems = {problem.path: problem for problem in problems_in(SMALL + SUBSCRIPTIONS + f"fixes:\n  {written}\n")}
    assert words in str(problems[path]) and problems[path].line is not None


def test_writing_subscriptions_needs_subscriptions():
    problem = the_problem_in(SMALL + "fixes: {update_subscription: write}")
    assert (problem.path, problem.exists) == ("fixes.update_subscription", "subscriptions are not mapped")
