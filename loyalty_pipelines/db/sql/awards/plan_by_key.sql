-- Until plan_freely.sql or the end of the transaction, statements look rows up one by one. On a small table the planner
-- would rather read it whole, and evaluate the shop's expressions for orders that are not in the batch: one order that
-- raises would then be blamed on all others. Safe to repeat; no index.
SELECT
    set_config('plan_cache_mode', 'force_custom_plan', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('enable_material', 'off', true),
    set_config('enable_seqscan', 'off', true);
