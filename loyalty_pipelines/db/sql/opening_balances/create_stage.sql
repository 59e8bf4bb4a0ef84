-- Holds the file while it is checked; gone at the end of the transaction.
CREATE TEMPORARY TABLE opening_lines (
    line bigint NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    points bigint NOT NULL,
    active_at timestamptz,
    local_active_at timestamp
) ON COMMIT DROP;
