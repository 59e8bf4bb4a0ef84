-- Sets the lock timeout until the end of the transaction. Safe to repeat: the last value counts. No index.
SELECT set_config('lock_timeout', :lock_timeout, true);
