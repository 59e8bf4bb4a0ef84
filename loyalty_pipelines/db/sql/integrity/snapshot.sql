-- Below its xmin every transaction has ended: whatever they wrote is visible to this proof. One that is at work now, and
-- commits late, is not below it, and so belongs to the next proof.
SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS verified_until;
