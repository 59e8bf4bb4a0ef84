"""What `loyalty metrics` says, as Prometheus's own parser reads it."""

from prometheus_client.parser import text_string_to_metric_families

from loyalty_pipelines.db.engine import reading
from loyalty_pipelines.db.metrics import read_metrics
from loyalty_pipelines.resources.prometheus import as_text
from tests.shop import Shop

# The values of a metric by those of its labels, in the order of the labels' names.
Scrape = dict[str, dict[tuple[str, ...], float]]


def parsed(text: str) -> Scrape:
    """Return the samples by metric; fail when one series is there twice, or one that was not announced."""
    found: Scrape = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge", family.name
        assert family.documentation
        assert family.name not in found
        found[family.name] = {}
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert sample.name == family.name
            assert labels not in found[family.name]
            found[family.name][labels] = sample.value
    return found


def scrape(shop: Shop, merchant_id: str | None = None) -> Scrape:
    """Read and write metrics as the command does."""
    with reading(shop.engine, is_one_snapshot=True) as conn:
        measured = read_metrics(conn, merchant_id=merchant_id)
    return parsed(as_text(measured).decode())
