-- Brings the shop's orders to what the file says and counts; orders that say it already are not touched, so that
-- importing twice writes nothing and puts nothing into the inbox. Safe to repeat; primary key of sample_shop.orders.
WITH different AS MATERIALIZED (
    SELECT
        l.order_id,
        l.customer_id,
        l.total,
        coalesce(l.currency, CAST(:currency AS text)) AS currency,
        l.status,
        l.paid_at,
        o.id IS NULL AS is_new
    FROM order_file_lines AS l
    LEFT JOIN sample_shop.orders AS o ON o.merchant_id = :merchant_id AND o.id = l.order_id
    WHERE
        o.id IS NULL
        OR (o.customer_id, o.total, o.currency, o.status, o.paid_at)
        IS DISTINCT FROM (l.customer_id, l.total, coalesce(l.currency, CAST(:currency AS text)), l.status, l.paid_at)
),

written AS (
    INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, created_at)
    SELECT
        CAST(:merchant_id AS text),
        d.order_id,
        d.customer_id,
        d.total,
        d.currency,
        d.status,
        d.paid_at,
        coalesce(d.paid_at, now())
    FROM different AS d
    ON CONFLICT (merchant_id, id) DO UPDATE SET
        customer_id = excluded.customer_id,
        total = excluded.total,
        currency = excluded.currency,
        status = excluded.status,
        paid_at = excluded.paid_at,
        updated_at = clock_timestamp()
)

SELECT
    count(*) FILTER (WHERE d.is_new) AS orders_new,
    count(*) FILTER (WHERE NOT d.is_new) AS orders_changed
FROM different AS d;
