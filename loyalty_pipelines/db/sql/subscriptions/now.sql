-- The instant of this transaction.
SELECT now();
