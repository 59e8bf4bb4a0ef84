-- The database's time: what is due is decided by one clock, whichever machine asks. Reads only.
SELECT now();
