-- The conditions of the contract of orders as one statement, counts only.
SELECT
    (
        SELECT coalesce(sum(t.orders), 0)
        FROM (
            SELECT count(*) AS orders FROM loyalty_source.orders GROUP BY merchant_id, order_id HAVING count(*) > 1
        ) AS t
    ) AS no_order_is_there_twice,
    count(*) FILTER (WHERE length(o.order_id) < 1) AS every_order_has_an_id,
    count(*) FILTER (WHERE o.status = 'unrecognized') AS every_order_has_a_known_status,
    count(*) FILTER (WHERE NOT (o.total_amount >= 0 AND o.total_amount <= 1000000000000))
        AS every_amount_of_an_order_is_plausible,
    count(*) FILTER (WHERE o.total_amount > 1000000000 AND o.total_amount <= 1000000000000)
        AS no_amount_of_an_order_is_above_a_billion,
    count(*) FILTER (WHERE NOT (o.points_redeemed >= 0 AND o.points_redeemed <= 2000000000))
        AS every_number_of_redeemed_points_is_plausible,
    count(*) FILTER (WHERE o.currency IS NULL) AS every_order_has_a_currency,
    count(*) FILTER (WHERE o.currency !~ '^[A-Z]{3}$') AS every_currency_of_an_order_is_a_code,
    count(*) FILTER (WHERE o.paid_at IS NULL AND o.status IN ('paid', 'partially_refunded', 'refunded'))
        AS every_paid_order_has_a_time_of_payment,
    count(*) FILTER (WHERE o.updated_at IS NULL) AS every_order_has_a_time_of_change,
    count(*) FILTER (WHERE o.paid_at > now() + interval '1 day') AS no_order_was_paid_in_the_future,
    count(*) FILTER (WHERE o.updated_at > now() + interval '1 day') AS no_order_was_changed_in_the_future,
    count(*) FILTER (WHERE m.merchant_id IS NULL) AS every_order_belongs_to_a_merchant,
    count(*) FILTER (WHERE c.customer_id IS NULL AND o.customer_id IS NOT NULL)
        AS every_order_belongs_to_a_known_customer,
    (
        SELECT count(*)
        FROM (
            SELECT
                d.merchant_id,
                coalesce(max(d.orders) FILTER (WHERE d.days_ago = 1), 0) AS orders,
                count(*) FILTER (WHERE d.days_ago > 1) AS weeks,
                min(d.orders) FILTER (WHERE d.days_ago > 1) AS fewest,
                max(d.orders) FILTER (WHERE d.days_ago > 1) AS most
            FROM (
                SELECT
                    s.merchant_id,
                    CAST(now() AT TIME ZONE 'UTC' AS date) - CAST(s.paid_at AT TIME ZONE 'UTC' AS date) AS days_ago,
                    count(*) AS orders
                FROM loyalty_source.orders AS s
                WHERE s.paid_at >= now() - interval '30 days' AND s.paid_at < now()
                GROUP BY 1, 2
            ) AS d
            WHERE d.days_ago IN (1, 8, 15, 22, 29)
            GROUP BY d.merchant_id
        ) AS w
        WHERE w.weeks = 4 AND w.fewest >= 20 AND (w.orders * 3 < w.fewest OR w.orders > w.most * 3)
    ) AS orders_of_yesterday_are_as_many_as_usual
FROM loyalty_source.orders AS o
LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = o.merchant_id
LEFT JOIN loyalty_source.customers AS c ON c.merchant_id = o.merchant_id AND c.customer_id = o.customer_id;
