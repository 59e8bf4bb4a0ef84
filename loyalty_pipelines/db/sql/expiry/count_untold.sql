-- How many accounts are still to be warned: those that others had locked. Reads only; accounts_expiring.
SELECT count(*)
FROM loyalty.expiring_accounts AS a
WHERE
    a.merchant_id = :merchant_id
    AND a.expires_at > CAST(:not_before AS timestamptz)
    AND a.expires_at <= CAST(:warn_until AS timestamptz)
    AND a.is_to_be_warned;
