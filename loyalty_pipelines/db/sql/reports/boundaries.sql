-- The instants at which a day or month (:unit) begins in any of these zones: of the present one, the next one and :periods
-- before. What lies between two of them lies within one period of each zone, so that movements.sql and redemptions.sql can
-- sum over millions of entries without looking a zone up for each. Reads nothing.
SELECT DISTINCT
    (
        date_trunc(CAST(:unit AS text), now() AT TIME ZONE zone.timezone)
        - (CAST('1 ' || CAST(:unit AS text) AS interval) * steps.n)
    ) AT TIME ZONE zone.timezone AS boundary_at
FROM unnest(CAST(:timezones AS text[])) AS zone (timezone)
CROSS JOIN generate_series(-1, CAST(:periods AS integer)) AS steps (n)
ORDER BY boundary_at;
