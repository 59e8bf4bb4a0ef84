"""What a mail template may contain, and templates made ready to render.

A template is subject, text and HTML in Jinja2's syntax: variables, a few filters, if/elif/else. Nothing in it can
loop, call, or reach an attribute, so that it can neither hang nor leak, whoever wrote it and however it got into the
database. Values are never templates.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from string import Template as Frame

from babel import Locale
from jinja2 import StrictUndefined, Template, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.mail_templates import TEMPLATES, read_frame

FILTERS = ("capitalize", "default", "lower", "title", "trim", "upper")
MAX_SUBJECT_SOURCE = 1_000
MAX_BODY_SOURCE = 200_000
# Far more than a mail needs; few enough that no template takes long to compile or makes a mail of megabytes.
MAX_NODES = 2_000
MAX_DEPTH = 25
# A header line that no mail server refuses and that nobody reads to its end.
MAX_SUBJECT = 200
CUT_OFF = "…"
# Control characters, line and paragraph separators, marks that turn the direction of what follows, half characters.
# No-break spaces stay: numbers are written with them.
NOT_IN_ONE_LINE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
IS_DOCUMENT = re.compile(r"<(?:!doctype|html)\b", re.IGNORECASE)
ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter, nodes.Keyword, nodes.If,
    nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not,
)  # fmt: skip
# What a template that was looked at can still raise with the values of one mail: a comparison of a text and a number.
RENDER_ERRORS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError)
FOUND = {
    nodes.For: "a for loop",
    nodes.Call: "a call",
    nodes.CallBlock: "a call block",
    nodes.Macro: "a macro",
    nodes.Import: "an import",
    nodes.FromImport: "an import",
    nodes.Include: "an include",
    nodes.Extends: "extends",
    nodes.Block: "a block",
    nodes.Getattr: "an attribute (.name)",
    nodes.Getitem: "a subscript ([...])",
    nodes.Assign: "an assignment (set)",
    nodes.AssignBlock: "an assignment (set)",
    nodes.FilterBlock: "a filter block",
    nodes.With: "a with block",
    nodes.Scope: "autoescape",
    nodes.Test: "a test (is ...)",
    nodes.Concat: "a concatenation (~)",
    nodes.Mul: "a multiplication",
    nodes.Pow: "a power",
}


class TemplateRefusedError(LoyaltyError):
    """A template has something that templates may not have, or does not render; `part` is subject, text or HTML."""

    def __init__(self, *, template: str, part: str, problem: str) -> None:
        self.template = template
        self.part = part
        self.problem = problem
        super().__init__(
            f"The {part} of {template} is refused: {problem}. Allowed are the variables "
            f"{', '.join(TEMPLATES.get(template, ())) or '(none)'}, the filters {', '.join(FILTERS)}, and if/elif/else."
        )


@dataclass(frozen=True, kw_only=True)
class ReadyTemplate:
    """A template that was looked at and compiled."""

    subject: Template
    text: Template
    html: Template

    def render(self, values: Mapping[str, object]) -> tuple[str, str, str]:
        """Return subject (one line), text and HTML."""
        return one_line(self.subject.render(values), MAX_SUBJECT), self.text.render(values), self.html.render(values)


def one_line(text: str, length: int) -> str:
    """Return `text` on one line of at most `length` characters, without control characters."""
    # Cut before it is searched: a name can have a million characters.
    line = NOT_IN_ONE_LINE.sub(" ", text[: 2 * length]).strip()
    return line if len(line) <= length else line[: length - 1].rstrip() + CUT_OFF


# As many as a busy night's merchants have; each takes some ten kilobytes.
@lru_cache(maxsize=1_000)
def ready(
    template: str, language: str, subject: str, text_body: str, html_body: str
) -> ReadyTemplate | TemplateRefusedError:
    """Return the template compiled, or why it is refused; both are remembered."""
    try:
        found = ReadyTemplate(
            subject=_compiled(template, "subject", subject, MAX_SUBJECT_SOURCE),
            text=_compiled(template, "text", text_body, MAX_BODY_SOURCE),
            html=_compiled(template, "HTML", html_body, MAX_BODY_SOURCE, language=language),
        )
        _try_out(template, found)
    except TemplateRefusedError as error:
        # Without its frames, which would keep what they held.
        return error.with_traceback(None)
    return found


@cache
def _environment(is_html: bool) -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=is_html, cache_size=0)
    made.filters = {name: made.filters[name] for name in FILTERS}
    made.globals.clear()
    made.tests.clear()
    return made


def _compiled(template: str, part: str, source: str, limit: int, *, language: str | None = None) -> Template:
    """Compile a part after looking at it; `language` is that of an HTML body, which gets its frame."""
    if template not in TEMPLATES:
        raise TemplateRefusedError(
            template=template, part=part, problem=f"no mail has this name; the names are {', '.join(TEMPLATES)}"
        )
    problem = (
        f"it has {len(source):,} characters, more than {limit:,}"
        if len(source) > limit
        else _problem(source, TEMPLATES[template], _environment(language is not None))
    )
    if problem:
        raise TemplateRefusedError(template=template, part=part, problem=problem)
    try:
        return _environment(language is not None).from_string(_framed(source, language) if language else source)
    except (*RENDER_ERRORS, SyntaxError) as error:
        raise TemplateRefusedError(template=template, part=part, problem=_text(error)) from None


def _problem(source: str, variables: tuple[str, ...], environment: ImmutableSandboxedEnvironment) -> str | None:
    """Return what the template has that it may not have; None: nothing."""
    try:
        tree = environment.parse(source)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {_text(error)}"
    except (ValueError, RecursionError) as error:
        return _text(error)
    level: list[nodes.Node] = [tree]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        for node in level:
            found = _what_is_wrong(node, variables)
            if found:
                return f"line {node.lineno}: found {found}" if node.lineno else f"found {found}"
        if count > MAX_NODES or depth > MAX_DEPTH:
            return f"it has more than {MAX_NODES:,} variables, conditions and texts, or more than {MAX_DEPTH} levels"
        level = [child for node in level for child in node.iter_child_nodes()]
    return None


def _what_is_wrong(node: nodes.Node, variables: tuple[str, ...]) -> str | None:
    if not isinstance(node, ALLOWED):
        return FOUND.get(type(node)) or f"{type(node).__name__.lower()!r}"
    if isinstance(node, nodes.Name) and node.name not in variables:
        return f"the variable {node.name!r}"
    if isinstance(node, nodes.Filter):
        if node.name not in FILTERS:
            return f"the filter {node.name!r}"
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            return "arguments from a variable (*)"
    return None


def _try_out(template: str, found: ReadyTemplate) -> None:
    """Render with a name and without, with one and with many: both sides of the usual conditions."""
    for name, count in (("Ann", 1), ("", 1_250)):
        numbers = {"points": f"{count:,}", "points_count": count, "stamps": f"{count:,}", "stamps_count": count}
        values = {"customer_name": name, "merchant_name": "Shop", "last_day": "x", "gone_on": "x", **numbers}
        for part, one in (("subject", found.subject), ("text", found.text), ("HTML", found.html)):
            try:
                text = one.render(values)
            except RENDER_ERRORS as error:
                raise TemplateRefusedError(
                    template=template, part=part, problem=f"it fails with sample values: {_text(error)}"
                ) from None
            if not one_line(text, MAX_SUBJECT):
                raise TemplateRefusedError(template=template, part=part, problem="it is empty with sample values")


def _framed(html_body: str, language: str) -> str:
    """Put an HTML body that is no document of its own into the built-in frame."""
    if IS_DOCUMENT.search(html_body):
        return html_body
    direction = Locale.parse(language).text_direction
    return Frame(_frame()).substitute(language=language, direction=direction, body=html_body.strip())


@cache
def _frame() -> str:
    return read_frame()


def _text(error: BaseException) -> str:
    return one_line(str(error) or type(error).__name__, 300).removesuffix(".")
