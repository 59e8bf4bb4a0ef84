-- Findings: which currencies a merchant has ever had some in, without reading all of them.
SET LOCAL ROLE loyalty_owner;

CREATE INDEX findings_currencies ON loyalty.findings (subject, merchant_id, coalesce(currency, ''));

RESET ROLE;
