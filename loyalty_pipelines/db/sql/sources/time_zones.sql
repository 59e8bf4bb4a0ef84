-- Reads the time zone names that this server knows. Safe to repeat: it only reads. No index: a function that
-- lists the server's zone files; once per check. Abbreviations are left out on purpose (IST is Israel here).
SELECT z.name
FROM pg_catalog.pg_timezone_names AS z
WHERE z.name NOT LIKE 'posix/%'
ORDER BY z.name;
