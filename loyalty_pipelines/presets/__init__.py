"""Source mappings for common shapes of shop, to be copied and edited by the operator."""

from importlib.resources import files

from loyalty_pipelines.domain.errors import ConfigurationError

PRESETS = {
    "django_shop": "Django: orders_order with a payment_status, many merchants, UUID order ids",
    "supabase_shop": "Supabase/PostgreSQL: vendors, customers, orders; payments and refunds in one table with"
    " reference_type and reference_id",
    "flask_razorpay_shop": "Flask + Razorpay: one merchant, meal plans and subscriptions, amounts in paise",
}


def read_preset(name: str) -> str:
    """Return the YAML text of the preset `name`, comments and all.

    Raises ConfigurationError when there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigurationError(f"found no preset {name!r}; presets are {', '.join(PRESETS)}; name one of these.")
    return files("loyalty_pipelines.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
