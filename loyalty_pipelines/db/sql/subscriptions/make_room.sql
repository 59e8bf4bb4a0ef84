-- Settings of the check's transaction. All rows are hashed in memory; merge joins would sort them (4.3 instead of 1.7 s for
-- 1,200,000 payments); a hundredth of the usual sample is enough for tables that live for seconds. Few rows come out of most
-- scans, whatever their conditions seem to let through: workers are worth it (1.0 instead of 1.6 s for 1,000,000 orders). No
-- statement is compiled: each is planned once for a few seconds at most.
SELECT
    set_config('work_mem', '128MB', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('parallel_tuple_cost', '0.01', true),
    set_config('jit', 'off', true),
    set_config('default_statistics_target', '10', true);
