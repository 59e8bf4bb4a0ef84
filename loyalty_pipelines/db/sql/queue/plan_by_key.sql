-- Until the end of the transaction, every look-up goes by its key. PostgreSQL keeps the plan that a function's statement
-- gets at first; made while a table of the ledger is nearly empty, it would read that table whole for each of the next
-- 100,000 items: 9 ms an item after 15,000 instead of 2.5. jit, because where there is no index the cost of reading the
-- table whole would start the compiler. Safe to repeat; no index.
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true);
