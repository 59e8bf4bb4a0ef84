-- The instant of the snapshot's transaction. Reads nothing.
SELECT now();
