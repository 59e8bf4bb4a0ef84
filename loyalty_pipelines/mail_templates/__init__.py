"""The built-in mails, in files: `<language>/<template>.txt` (subject and text), `<language>/<template>.html`, a frame.

The HTML is what stands inside `frame.html`. Written under the same rules as overrides (domain/mail_templates.py).
"""

from importlib.resources import files

# Each with the variables that its mails have.
TEMPLATES = {
    "loyalty_enrollment": ("customer_name", "merchant_name"),
    "loyalty_welcome_bonus": ("customer_name", "merchant_name", "points", "points_count"),
    "loyalty_points_expiring": ("customer_name", "merchant_name", "points", "points_count", "last_day", "gone_on"),
    "loyalty_points_expired": ("customer_name", "merchant_name", "points", "points_count", "last_day", "gone_on"),
    "loyalty_reward_ready": ("customer_name", "merchant_name", "stamps", "stamps_count"),
}
LOCALES = ("en", "fr", "de", "lb")
SUBJECT = "Subject: "


def read_template(template: str, locale: str) -> tuple[str, str, str]:
    """Return subject, text and HTML of a built-in; `template` is one of TEMPLATES, `locale` one of LOCALES."""
    folder = files(__name__).joinpath(locale)
    subject, _, text = folder.joinpath(f"{template}.txt").read_text(encoding="utf-8").partition("\n\n")
    return subject.removeprefix(SUBJECT), text, folder.joinpath(f"{template}.html").read_text(encoding="utf-8")


def read_frame() -> str:
    """Return the document around an HTML body, with `$language`, `$direction` and `$body` for `string.Template`."""
    return files(__name__).joinpath("frame.html").read_text(encoding="utf-8")
