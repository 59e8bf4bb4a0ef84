import time
from tests.cli import Cli
from tests.shop import Shop
def test_big(shop: Shop, database_url: str) -> None:
    shop.run("INSERT INTO sample_shop.orders (merchant_id,id,customer_id,total,currency,status,paid_at) SELECT 'm1', g::text, 'ann', 10, 'EUR','paid', now() - interval '1 day' FROM generate_series(1,100000) g")
    shop.award(batch_size=20000)
    shop.run("ANALYZE")
    cli = Cli(database_url)
    for args in (["--json"], [], ["--all"]):
        if args == []:
            shop.spend("ann", 999_000)
        t = time.monotonic(); out = cli.ok("account", "explain", "m1", "ann", *args).out; print(args, round(time.monotonic() - t, 1), "s", len(out))
        if args == []: print(out[:3000])
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.explain import explain_account
    with reading(shop.engine, is_one_snapshot=True) as conn:
        t = time.monotonic(); explain_account(conn, "m1", "ann"); print("db", round(time.monotonic() - t, 1))
