-- The database's clock, which also stamps the orders: the operator's may be wrong. Reads only.
SELECT now() AS as_of;
