-- How long the running transaction has taken. Reads only, no table.
SELECT extract(EPOCH FROM clock_timestamp() - now()) AS seconds;
