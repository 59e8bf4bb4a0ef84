-- The time of this transaction. Reads nothing.
SELECT now() AS as_of;
