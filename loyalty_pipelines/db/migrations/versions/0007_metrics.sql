-- Metrics: the views behind 'loyalty metrics'.
SET LOCAL ROLE loyalty_owner;

RESET ROLE;
