-- A plan that the shop shows twice makes no payment two: it goes by the cheaper one, as checked_plans does. Those few rows only.
DELETE FROM checked_payments AS p
USING (
    SELECT
        c.ctid AS row_id,
        row_number() OVER (
            PARTITION BY c.merchant_id, c.payment_id, c.subscription_id ORDER BY c.plan_amount, c.ctid
        ) AS place
    FROM checked_payments AS c
    INNER JOIN (
        SELECT
            pl.merchant_id,
            pl.plan_id
        FROM loyalty_source.plans AS pl
        INNER JOIN checked_merchants AS m ON m.merchant_id = pl.merchant_id
        GROUP BY pl.merchant_id, pl.plan_id
        HAVING count(*) > 1
    ) AS shown ON shown.merchant_id = c.merchant_id AND shown.plan_id = c.plan_id
) AS ranked
WHERE ranked.place > 1 AND p.ctid = ranked.row_id;
