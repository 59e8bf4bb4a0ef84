-- Alerts: open problems and what was sent about them.
SET LOCAL ROLE loyalty_owner;

RESET ROLE;
