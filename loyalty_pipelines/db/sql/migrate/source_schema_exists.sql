-- Reads only.
SELECT to_regnamespace('loyalty_source') IS NOT NULL;
