-- Takes plan_by_key.sql back. Safe to repeat; no index.
SELECT
    set_config('plan_cache_mode', NULL, true),
    set_config('enable_hashjoin', NULL, true),
    set_config('enable_mergejoin', NULL, true),
    set_config('enable_material', NULL, true),
    set_config('enable_seqscan', NULL, true);
