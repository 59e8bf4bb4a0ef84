-- What a sensor needs to decide: whether anything waits in the inbox. One index probe. Reads only.
SELECT exists(
    SELECT 1
    FROM loyalty.order_inbox
) AS is_pending;
