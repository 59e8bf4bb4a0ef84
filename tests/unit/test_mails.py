"""Mails: the chain of templates, the sandbox, values that are never templates, languages and dates."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from loyalty_pipelines.domain import mail_templates
from loyalty_pipelines.domain.mail_coverage import CustomerGroup, coverage, unused_ones
from loyalty_pipelines.domain.mail_templates import MAX_SUBJECT, TemplateRefusedError
from loyalty_pipelines.domain.mails import (
    MailFacts,
    MailFactsError,
    Override,
    Overrides,
    UnknownLanguageError,
    built_in,
    checked,
    language_of,
    problem_of,
    render,
)
from loyalty_pipelines.mail_templates import LOCALES, TEMPLATES

EXPIRING = "loyalty_points_expiring"
# Midnight after the 14th in Luxembourg, in winter.
MIDNIGHT = "2027-03-14T23:00:00+00:00"
ALL = [(template, locale) for template in TEMPLATES for locale in LOCALES]


def facts(template: str = EXPIRING, **changes: Any) -> MailFacts:
    """A mail to Ann of store s1 at merchant m1; nobody has a language."""
    return MailFacts(
        **{
            "template": template,
            "payload": {"points": 1250, "stamps": 10, "expires_at": MIDNIGHT},
            "merchant_id": "m1",
            "merchant_name": "Corner Shop",
            "merchant_locale": None,
            "merchant_timezone": "Europe/Luxembourg",
            "customer_name": "Ann",
            "customer_locale": None,
            "store_id": "s1",
            **changes,
        }
    )


def override(merchant: str = "m1", store: str = "", locale: str = "en", **parts: str) -> Override:
    """An override that says whose it is."""
    return Override(
        merchant_id=merchant,
        store_id=store,
        template=parts.get("template", EXPIRING),
        locale=locale,
        subject=parts.get("subject", f"{merchant or 'platform'}/{store}/{locale}"),
        text_body=parts.get("text", "text"),
        html_body=parts.get("html", "<p>html</p>"),
    )


def refused(source: str) -> str:
    """Return why a text part is refused."""
    with pytest.raises(TemplateRefusedError) as found:
        checked(override(text=source))
    return str(found.value)


class Document(HTMLParser):
    """What an HTML part consists of; fails when tags don't match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(("template", "locale"), ALL)
@pytest.mark.parametrize("name", ["Ann", None])
def test_every_built_in_renders_in_every_language_with_and_without_a_name(
    template: str, locale: str, name: str | None
) -> None:
    mail = render(facts(template, customer_locale=locale, customer_name=name))
    assert (mail.origin, mail.locale, mail.problems) == ("built-in", locale, ())
    document = Document(mail.html)
    assert ("html", "lang", locale) in document.attributes
    for part in (mail.subject, mail.text, document.text):
        assert "Corner Shop" in part
        assert not re.search(r"[{}%]|None|  |\s,", part.replace("\n", "|"))
    greeting = mail.text.splitlines()[0]
    assert (" Ann," in greeting) == (name is not None)
    assert greeting.endswith(",")
    assert greeting in document.text


@pytest.mark.parametrize(("template", "locale"), ALL)
def test_every_built_in_says_its_figures_and_dates_in_both_parts(template: str, locale: str) -> None:
    mail = render(facts(template, customer_locale=locale))
    months = {"en": "March", "fr": "mars", "de": "März", "lb": "Mäerz"}
    expected = {"stamps": "10"} if "stamps" in TEMPLATES[template] else {}
    if "points" in TEMPLATES[template]:
        expected["points"] = "1,250" if locale == "en" else "1\u202f250" if locale == "fr" else "1.250"
    if "last_day" in TEMPLATES[template]:
        expected["last_day"] = f"14{'.' if locale in ('de', 'lb') else ''} {months[locale]} 2027"
    for part in (mail.text, Document(mail.html).text):
        assert all(value in part for value in expected.values())
    warned = "15" in mail.text
    assert warned == (template == EXPIRING)


def test_one_point_is_no_points() -> None:
    texts = {
        locale: render(facts("loyalty_welcome_bonus", payload={"points": 1}, customer_locale=locale)).text
        for locale in LOCALES
    }
    assert [re.findall(r"\b1 \w+", texts[locale]) for locale in LOCALES] == [
        ["1 point"],
        ["1 point"],
        ["1 Punkt"],
        ["1 Punkt"],
    ]


def test_a_built_in_has_nothing_that_is_loaded_from_elsewhere() -> None:
    for template, locale in ALL:
        document = Document(render(facts(template, customer_locale=locale)).html)
        names = {(tag, name) for tag, name, _ in document.attributes}
        assert not names & {("img", "src"), ("link", "href"), ("a", "href"), ("script", "src"), ("body", "background")}
        assert "url(" not in str(document.attributes)


def test_the_chain_is_store_merchant_platform_built_in_for_each_language() -> None:
    everyone = [
        override("m1", "s1", "de"), override("m1", "", "de"), override("", "", "de"),
        override("m1", "s1", "fr"), override("m1", "", "fr"), override("", "", "fr"),
        override("m1", "s1", "en"), override("m1", "", "en"), override("", "", "en"),
    ]  # fmt: skip
    mail = facts(customer_locale="de", merchant_locale="fr")
    found = []
    while everyone:
        first = render(mail, everyone)
        found.append((first.locale, first.origin))
        if first.origin == "built-in":
            break
        everyone.remove(next(one for one in everyone if (one.locale, one.origin) == (first.locale, first.origin)))
    assert found == [("de", "store"), ("de", "merchant"), ("de", "platform"), ("de", "built-in")]


def test_a_language_without_any_template_goes_on_with_the_merchants_then_with_english() -> None:
    assert render(facts(customer_locale="pt-BR", merchant_locale="fr_LU")).locale == "fr"
    assert render(facts(customer_locale="pt-BR", merchant_locale="it")).locale == "en"
    assert render(facts(customer_locale=None, merchant_locale="lb")).locale == "lb"
    assert render(facts(customer_locale="pt", merchant_locale="fr"), [override("", "", "pt")]).locale == "pt"


def test_a_customer_without_a_store_gets_no_stores_override() -> None:
    overrides = [override("m1", "s1")]
    assert render(facts(), overrides).origin == "store"
    assert render(facts(store_id=None), overrides).origin == "built-in"
    assert render(facts(store_id="s2"), overrides).origin == "built-in"


def test_an_override_of_another_merchant_is_never_used() -> None:
    overrides = [override("m2"), override("m2", "s1")]
    assert render(facts(), overrides).origin == "built-in"
    assert render(facts(merchant_id="m2"), overrides).origin == "store"


def test_an_override_of_another_template_is_never_used() -> None:
    assert render(facts(), [override(template="loyalty_points_expired")]).origin == "built-in"


def test_a_broken_override_is_passed_over_for_the_next_in_the_chain_and_named() -> None:
    broken = override("m1", "s1", text="{{ ''.__class__ }}")
    mail = render(facts(), [broken, override("", "")])
    assert mail.origin == "platform"
    (problem,) = mail.problems
    assert problem == (
        "loyalty_points_expiring in 'en' of store 's1' of merchant 'm1': text: line 1: found an attribute (.name)"
    )


def test_an_override_that_fails_with_one_customers_values_is_passed_over_for_that_customer() -> None:
    tricky = override(text="{% if customer_name == 'Bob' %}{% if customer_name < 1 %}x{% endif %}{% endif %}text")
    assert problem_of(tricky) is None
    assert render(facts(), [tricky]).origin == "merchant"
    found = render(facts(customer_name="Bob"), [tricky])
    assert found.origin == "built-in"
    assert "not supported between" in found.problems[0]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{{ ''.__class__ }}", "an attribute"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "a call"),
        ("{{ ''['__class__'] }}", "a subscript"),
        ("{{ customer_name.upper() }}", "a call"),
        ("{{ customer_name|attr('__class__') }}", "filter"),
        ("{{ customer_name|map('upper') }}", "filter"),
        ("{{ merchant_name|safe }}", "the filter 'safe'"),
        ("{{ 'x'|upper(*customer_name) }}", "arguments from a variable"),
        ("{% for x in customer_name %}{{ x }}{% endfor %}", "a for loop"),
        ("{% macro m() %}{% endmacro %}x", "a macro"),
        ("{% call x() %}{% endcall %}", "a call block"),
        ("{% import 'os' as os %}", "an import"),
        ("{% from 'os' import path %}", "an import"),
        ("{% include '/etc/passwd' %}", "an include"),
        ("{% extends 'x' %}", "extends"),
        ("{% block x %}{% endblock %}", "a block"),
        ("{% set x = 1 %}x", "an assignment"),
        ("{% set x %}y{% endset %}x", "an assignment"),
        ("{% filter upper %}x{% endfilter %}", "a filter block"),
        ("{% with %}x{% endwith %}", "a with block"),
        ("{% autoescape false %}{{ customer_name }}{% endautoescape %}", "autoescape"),
        ("{{ 'x' * 100000000 }}", "a multiplication"),
        ("{{ 9 ** 99999999 }}", "a power"),
        ("{{ customer_name ~ 'x' }}", "a concatenation"),
        ("{{ 1 + 1 }}", "'add'"),
        ("{{ [1] }}", "'list'"),
        ("{{ {} }}", "'dict'"),
        ("{% if customer_name is defined %}x{% endif %}", "test"),
        ("{{ range(10) }}", "a call"),
        ("{{ self }}", "the variable 'self'"),
        ("{{ password }}", "the variable 'password'"),
        ("{{ stamps }}", "the variable 'stamps'"),
        ("{% if points_count == 1 %}x", "line 1: Unexpected end of template"),
        ("one\n{{ }}", "line 2: Expected an expression"),
        ("{% trans %}x{% endtrans %}", "Encountered unknown tag 'trans'"),
        ("{{ points_count < points }}", "fails with sample values"),
        ("{{ '' }} \n", "it is empty with sample values"),
        ("x" * 200_001, "it has 200,001 characters, more than 200,000"),
        ("{{ points }}" * 2_001, "more than 2,000 variables, conditions and texts"),
        ("{% if points %}" * 30 + "x" + "{% endif %}" * 30, "more than 25 levels"),
        ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "recursion"),
        ("{{ " + "9" * 5_000 + " }}", "digits"),
    ],
)
def test_what_could_hang_or_leak_is_refused_with_what_was_found_and_what_is_allowed(source: str, what: str) -> None:
    error = refused(source)
    assert what in error
    assert "Allowed are the variables customer_name, merchant_name, points, points_count, last_day, gone_on" in error
    assert "the filters capitalize, default, lower, title, trim, upper, and if/elif/else" in error
    # Past the command line it is refused just as well.
    mail = render(facts(), [override(text=source)])
    assert (mail.origin, len(mail.problems)) == ("built-in", 1)


def test_what_is_allowed_renders() -> None:
    text = (
        "{# a comment #}{% raw %}{{ }}{% endraw %} {{ customer_name|default('you', true)|upper }} "
        "{% if points_count == 1 %}one{% elif points_count > 1000 and not last_day == '' %}{{ points }}{% else %}x"
        "{% endif %} {{ 'by ' if gone_on else '' }}{{ gone_on }}"
    )
    mail = render(facts(customer_name=None), [override(text=text)])
    assert mail.text == "{{ }} YOU 1,250 by 15 March 2027"
    assert mail.problems == ()


def test_the_longest_chain_of_conditions_that_is_allowed_compiles() -> None:
    chain = "{% if points_count == 0 %}0" + "".join(f"{{% elif points_count == {n} %}}{n}" for n in range(1, 280))
    assert problem_of(override(text=chain + "{% else %}x{% endif %}")) is None


@pytest.mark.parametrize("name", ["{{ 7*7 }}", "{% for x in y %}", "{# x #}", "{{ ''.__class__ }}"])
def test_a_value_is_never_a_template(name: str) -> None:
    mail = render(
        facts(customer_name=name, merchant_name=name),
        [override(subject="For {{ customer_name }}", text="{{ merchant_name }}", html="{{ customer_name|upper }}")],
    )
    assert (mail.subject, mail.text) == (f"For {name}", name)
    assert name in render(facts(customer_name=name)).text


def test_values_are_escaped_in_html_and_only_there() -> None:
    name = "<img src=x onerror='alert(1)'> & \"Co\""
    for overrides in (
        [],
        [override(html="<p title=\"{{ customer_name|upper }}\">{{ customer_name|default('x') }}</p>")],
    ):
        mail = render(facts(customer_name=name, merchant_name=name), overrides)
        assert "<img" not in mail.html.lower()
        assert "&lt;img src=x onerror=&#39;alert(1)&#39;&gt; &amp; &#34;Co&#34;" in mail.html
        Document(mail.html)
    assert f"Hello {name}," in render(facts(customer_name=name)).text


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\x00\x1b"])
def test_a_name_can_add_no_header_and_no_line(ending: str) -> None:
    name = f"Ann{ending}Bcc: all@example.com{ending}{ending}Hi"
    mail = render(
        facts(customer_name=name, merchant_name=name), [override(subject="{{ customer_name }} at {{ merchant_name }}")]
    )
    assert mail.subject == "Ann Bcc: all@example.com Hi at Ann Bcc: all@example.com Hi"
    text = render(facts(customer_name=name)).text
    assert text.startswith("Hello Ann Bcc: all@example.com Hi,\n\n")


def test_a_subject_written_over_lines_is_one_line_and_is_cut() -> None:
    assert render(facts(), [override(subject="a\r\nBcc: b\n\tc")]).subject == "a Bcc: b c"
    long = render(facts(), [override(subject="word " * 100)]).subject
    assert len(long) <= MAX_SUBJECT
    assert long.endswith("word…")


def test_names_of_any_alphabet_stay_and_endless_ones_are_cut() -> None:
    for name in ("😀 𝒜nn 👨‍👩‍👧", "العربية", "Ñuñez–O’Brien", "王小明"):
        assert f"Hello {name}," in render(facts(customer_name=name)).text
        assert name in Document(render(facts(customer_name=name)).html).text
    huge = render(facts(customer_name="x" * 1_000_000)).text
    assert len(huge) < 500
    assert "xxx…," in huge


def test_a_mark_that_turns_the_direction_and_half_a_character_are_dropped() -> None:
    mail = render(facts(customer_name="A\u202enn \ud800B\u2066"))
    assert mail.text.startswith("Hello A nn B,")
    mail.text.encode()
    mail.subject.encode()


@pytest.mark.parametrize("name", [None, "", "   ", "\r\n\t"])
def test_a_customer_without_a_name_is_greeted_without_one(name: str | None) -> None:
    assert render(facts(customer_name=name)).text.startswith("Hello,\n\n")


def test_a_merchant_without_a_name_is_called_by_its_id() -> None:
    assert render(facts(merchant_name=" ")).subject == "Your points at m1 expire soon"


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("de-LU", "de"), ("de_LU.UTF-8", "de"), ("DE", "de"), ("de@euro", "de"), (" fr ", "fr"), ("fr-XX", "fr"),
        ("zh-Hant-TW", "zh"), ("lb_LU", "lb"), ("ltz", "lb"), ("en_US_POSIX", "en"), ("de-DE-x-private", "de"),
        (None, None), ("", None), ("C", None), ("C.UTF-8", None), ("POSIX", None), ("xx", None), ("French", None),
        ("und", None), ("und-US", None), ("mul", None), ("zxx", None), ("root", None), ("eng", "en"), ("ger", "de"),
        ("../../etc", None), ("de\n", "de"), ("de-" + "x" * 1_000_000, None), ("{{ 7 }}", None), ("💥", None),
    ],
)  # fmt: skip
def test_a_locale_as_shops_write_it_has_a_language(locale: str | None, language: str | None) -> None:
    assert language_of(locale) == language


@pytest.mark.parametrize(
    ("customer", "merchant", "points", "gone_on"),
    [
        ("en", None, "1,250", "15 March 2027"),
        ("en_US", None, "1,250", "March 15, 2027"),
        ("en-GB", "en_US", "1,250", "15 March 2027"),
        ("en", "en_US", "1,250", "March 15, 2027"),
        ("eng", None, "1,250", "15 March 2027"),
        ("eng", "en_US", "1,250", "March 15, 2027"),
        ("eng_US", None, "1,250", "March 15, 2027"),
        ("deu", "de_CH", "1’250", "15. März 2027"),
        ("und", "de_CH", "1’250", "15. März 2027"),
        ("zho_TW", "fr", "1\u202f250", "15 mars 2027"),
        ("en_LU", None, "1,250", "15 March 2027"),
        (None, None, "1,250", "15 March 2027"),
        ("de-CH", None, "1’250", "15. März 2027"),
        ("de", "de_CH", "1’250", "15. März 2027"),
        ("de", "fr_LU", "1.250", "15. März 2027"),
        ("pt_BR", "fr_FR", "1\u202f250", "15 mars 2027"),
        ("lb", None, "1.250", "15. Mäerz 2027"),
    ],
)
def test_numbers_and_dates_are_written_as_in_the_customers_country(
    customer: str | None, merchant: str | None, points: str, gone_on: str
) -> None:
    text = "{{ points }}|{{ gone_on }}"
    overrides = [override(locale=language, text=text) for language in LOCALES]
    assert render(facts(customer_locale=customer, merchant_locale=merchant), overrides).text == f"{points}|{gone_on}"


def test_the_first_of_a_month_is_written_as_the_french_do() -> None:
    payload = {"points": 1, "expires_at": "2027-02-28T23:00:00+00:00"}
    assert "Ne seront plus valables à partir du : 1er mars 2027" in render(
        facts(payload=payload, customer_locale="fr")
    ).text.replace("\xa0", " ")
    assert ": 1 March 2027" in render(facts(payload=payload)).text
    payload = {"points": 1, "expires_at": "2027-03-10T23:00:00+00:00"}
    assert ": 11 mars 2027" in render(facts(payload=payload, customer_locale="fr")).text.replace("\xa0", " ")


@pytest.mark.parametrize(
    ("timezone", "instant", "last_day", "gone_on"),
    [
        ("Europe/Luxembourg", "2027-03-27T23:00:00+00:00", "27 March 2027", "28 March 2027"),
        # The night after, clocks have changed.
        ("Europe/Luxembourg", "2027-03-28T22:00:00+00:00", "28 March 2027", "29 March 2027"),
        ("Europe/Luxembourg", "2027-10-31T23:00:00+00:00", "31 October 2027", "1 November 2027"),
        ("America/Los_Angeles", "2027-03-14T08:00:00+00:00", "13 March 2027", "14 March 2027"),
        ("America/Los_Angeles", "2027-03-15T07:00:00+00:00", "14 March 2027", "15 March 2027"),
        ("Europe/Luxembourg", "2028-02-28T23:00:00Z", "28 February 2028", "29 February 2028"),
        ("Pacific/Kiritimati", "2027-03-14T10:00:00+00:00", "14 March 2027", "15 March 2027"),
        ("europe/luxembourg", "2027-03-14T23:00:00+00:00", "14 March 2027", "15 March 2027"),
        ("Etc/Nowhere", "2027-03-15T00:00:00+00:00", "14 March 2027", "15 March 2027"),
        ("../../etc/passwd", "2027-03-15T00:00:00+00:00", "14 March 2027", "15 March 2027"),
        ("", "2027-03-15T00:00:00+00:00", "14 March 2027", "15 March 2027"),
        ("Europe", "2027-03-15T00:00:00+00:00", "14 March 2027", "15 March 2027"),
    ],
)
def test_the_merchants_zone_decides_the_last_day(timezone: str, instant: str, last_day: str, gone_on: str) -> None:
    mail = render(
        facts(merchant_timezone=timezone, payload={"points": 1, "expires_at": instant}),
        [override(text="{{ last_day }}|{{ gone_on }}")],
    )
    assert mail.text == f"{last_day}|{gone_on}"


@pytest.mark.parametrize(
    ("template", "payload"),
    [
        (EXPIRING, {}),
        (EXPIRING, {"points": "ten", "expires_at": MIDNIGHT}),
        (EXPIRING, {"points": 10}),
        (EXPIRING, {"points": 10, "expires_at": "tomorrow"}),
        (EXPIRING, {"points": 10, "expires_at": "2027-03-14T23:00:00"}),
        ("loyalty_reward_ready", {"points": 10}),
        ("loyalty_unknown", {}),
    ],
)
def test_a_row_of_the_outbox_that_is_no_mail_says_what_is_wrong(template: str, payload: dict[str, object]) -> None:
    with pytest.raises(MailFactsError, match="expected"):
        render(facts(template, payload=payload), [override()])


def test_a_html_body_gets_the_frame_unless_it_is_a_document() -> None:
    framed = render(facts(customer_locale="ar"), [override(locale="ar", html="<p>{{ points }}</p>")])
    assert '<html lang="ar" dir="rtl">' in framed.html
    assert "<title>Corner Shop</title>" in framed.html
    own = "<!doctype html><html lang='en'><body style=\"color: {#x#}red\">$body {{ points }}</body></html>"
    mail = render(facts(), [override(html=own)])
    assert mail.html == "<!doctype html><html lang='en'><body style=\"color: red\">$body 1,250</body></html>"
    assert "<p>$5 $body</p>" in render(facts(), [override(html="<p>$5 $body</p>")]).html


def test_an_override_is_kept_under_its_language() -> None:
    assert checked(override(locale="de-LU")).locale == "de"
    with pytest.raises(UnknownLanguageError, match="'xx' is no language: use a code such as en"):
        checked(override(locale="xx"))


def test_a_locale_written_past_the_command_line_is_a_problem_and_no_crash() -> None:
    assert "mails look for 'de': set it again as that" in (problem_of(override(locale="de-LU")) or "")
    assert "'xx' is no language" in (problem_of(override(locale="xx")) or "")
    assert render(facts(customer_locale="de-LU"), [override(locale="de-LU")]).origin == "built-in"


def test_a_template_is_compiled_once_and_a_refusal_is_remembered() -> None:
    before = mail_templates.ready.cache_info()
    for text in ("compiled once", "{{ refused.once }}"):
        for _ in range(5):
            render(facts(), [override(text=text)])
    after = mail_templates.ready.cache_info()
    assert after.misses - before.misses <= 3


def test_overrides_are_a_collection() -> None:
    one, other = override("m1"), override("m2")
    found = Overrides([one, other])
    assert len(found) == 2
    assert set(found) == {one, other}
    assert one in found
    assert replace(one, subject="x") not in found
    assert "x" not in found


def group(store: str | None, locale: str | None, customers: int = 1, *, merchant: str = "m1") -> CustomerGroup:
    return CustomerGroup(merchant_id=merchant, merchant_locale="fr", store_id=store, locale=locale, customers=customers)


def test_the_matrix_has_every_language_and_store_of_customers_and_overrides() -> None:
    overrides = Overrides(
        [
            override("m1", "s1", "de"), override("m1", "", "de"), override("", "", "lb"), override("m1", "s9", "pt"),
            override("m1", "s2", "de", text="{{ broken }}"),
        ]
    )  # fmt: skip
    found = coverage(
        "m1", [group("s1", "de-DE", 2), group("s1", "de", 3), group(None, "it"), group("s2", None)], overrides
    )
    assert found.languages == ["en", "fr", "de", "lb", "it", "pt"]
    assert found.stores == [None, "s1", "s2", "s9"]
    assert len(found.cells) == 5 * 4 * 6
    cells = {(one.store_id, one.language): one for one in found.cells if one.template == EXPIRING}
    taken = {key: (one.origin, one.language_taken) for key, one in cells.items()}
    assert taken["s1", "de"] == ("store", "de")
    assert taken[None, "de"] == taken["s2", "de"] == taken["s9", "de"] == ("merchant", "de")
    assert taken["s1", "lb"] == ("platform", "lb")
    assert taken["s1", "en"] == ("built-in", "en")
    assert taken[None, "it"] == taken["s1", "pt"] == ("built-in", "fr")
    assert taken["s9", "pt"] == ("store", "pt")
    assert cells["s1", "de"].customers == 5
    assert cells["s2", "fr"].customers == 1
    assert sum(one.customers for one in cells.values()) == 7
    other = {one.origin for one in found.cells if one.template != EXPIRING}
    assert other == {"built-in"}
    assert [(one.store_id, one.reason) for one in found.broken] == [("s2", "text: line 1: found the variable 'broken'")]


def test_the_matrix_of_a_merchant_shows_no_override_of_another() -> None:
    overrides = Overrides([override("m2", "s5", "pt")])
    found = coverage("m1", [group("s1", "de")], overrides)
    assert {one.origin for one in found.cells} == {"built-in"}
    assert (found.stores, found.broken, found.unused) == ([None, "s1"], [], [])


def test_the_matrix_of_a_merchant_without_customers_falls_back_to_its_language() -> None:
    found = coverage("m1", [group(None, None, 0)], Overrides([override("m1", "", "pt")]))
    assert {one.language_taken for one in found.cells if one.language == "pt"} == {"pt", "fr"}
    assert {one.customers for one in found.cells} == {0}
    assert [one.reason for one in found.unused] == ["there is no active customer"]


@pytest.mark.parametrize(
    ("one", "others", "reason"),
    [
        (override("m1", "s1", "de"), [], None),
        (override("m1", "", "de"), [], None),
        (override("", "", "fr"), [], None),
        (override("m3", "", "de"), [], "the shop has no such merchant"),
        (override("m1", "s9", "de"), [], "no active customer is in this store"),
        (override("m1", "", "pt"), [], "nobody gets this mail in 'pt': the customers' languages are de, it"),
        (override("m1", "s1", "fr"), [], "nobody gets this mail in 'fr': the customers' languages are de"),
        (override("m1", "", "de"), [override("m1", "s1", "de")], "all who get this mail in 'de' get a more specific"),
        (
            override("", "", "fr"),
            [override("m1", "", "fr"), override("m2", "", "fr")],
            "all who get this mail in 'fr' get a more specific",
        ),
        # Whose earlier language has this mail, though not the others.
        (override("m1", "", "fr"), [override("", "", "it")], "nobody gets this mail in 'fr'"),
        (override("m1", "", "en"), [], "nobody gets this mail in 'en'"),
        # The broken one hides nothing, and is not reported twice.
        (override("m1", "", "de"), [override("m1", "s1", "de", text="{{ x }}")], None),
        (override("m1", "", "de", text="{{ x }}"), [], None),
    ],
)
def test_an_override_that_nobody_gets_is_named_with_the_reason(
    one: Override, others: list[Override], reason: str | None
) -> None:
    groups = [group("s1", "de"), group("s2", "it"), group("s3", None, 0), group("s1", "pt", merchant="m2")]
    found = unused_ones([one], groups, Overrides([one, *others]))
    if reason is None:
        assert found == []
    else:
        assert [row.reason[: len(reason)] for row in found] == [reason]


def test_a_built_in_is_written_by_the_rules_for_overrides() -> None:
    for template, locale in ALL:
        assert checked(built_in(template, locale)) == built_in(template, locale)
