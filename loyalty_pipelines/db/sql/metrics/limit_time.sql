-- No statement of this transaction takes longer: a shop that does not answer must not pile up one scrape on another.
SELECT set_config('statement_timeout', '30s', true);
