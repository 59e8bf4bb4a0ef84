-- What each subscription was paid for, so that the joins of it are planned for its size.
ANALYZE paid_chains;
