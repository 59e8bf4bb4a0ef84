-- Whether awarding can read what it reads: fails where a view or function is gone, or the right to it. Reads no row.
SELECT 1
FROM loyalty_source.orders_of_merchant('')
CROSS JOIN loyalty_source.refunds_of_merchant('')
CROSS JOIN loyalty_source.order_by_id('', '')
CROSS JOIN loyalty_source.refunds_of_order('', '')
LIMIT 0;
