-- Reads the lock timeout in force, to put it back. Safe to repeat: it only reads. No index.
SELECT current_setting('lock_timeout') AS lock_timeout;
