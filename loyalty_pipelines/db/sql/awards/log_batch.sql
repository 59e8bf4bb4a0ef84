-- Written with the batch, so that what is counted is what was committed. now() is when its transaction began.
INSERT INTO loyalty.award_batches (
    merchant_id, run_id, actor, rows_claimed, rows_repeated, orders_changed, orders_unchanged, orders_queued,
    orders_skipped, orders_missing, entries_written, points_changed, oldest_enqueued_at, award_seconds
)
VALUES (
    :merchant_id, :run_id, :actor, :rows_claimed, :rows_repeated, :orders_changed, :orders_unchanged, :orders_queued,
    :orders_skipped, :orders_missing, :entries_written, :points_changed, :oldest_enqueued_at,
    extract(EPOCH FROM clock_timestamp() - now())
);
