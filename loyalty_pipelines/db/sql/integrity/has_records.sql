-- Whether a merchant has, or had, a finding, a repair or a proof: one of whom nothing else is left. Reads only;
-- findings_pkey, integrity_repairs_pkey, integrity_marks_pkey.
SELECT
    EXISTS (SELECT 1 FROM loyalty.findings AS f WHERE f.merchant_id = :merchant_id)
    OR EXISTS (SELECT 1 FROM loyalty.integrity_repairs AS r WHERE r.merchant_id = :merchant_id)
    OR EXISTS (SELECT 1 FROM loyalty.integrity_marks AS m WHERE m.merchant_id = :merchant_id) AS has_records;
