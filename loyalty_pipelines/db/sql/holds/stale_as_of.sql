-- The instant as of which a hold is stale; no row: none is. Reads the first entry of holds_open_by_expiry.
SELECT now() AS as_of
FROM loyalty.holds AS h
WHERE h.status = 'open' AND h.expires_at <= now()
LIMIT 1;
