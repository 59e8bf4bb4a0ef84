-- Holds the file while it is checked; gone at the end of the transaction.
CREATE TEMPORARY TABLE order_file_lines (
    line bigint NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    total numeric,
    refunded numeric,
    currency text,
    status text NOT NULL,
    paid_at timestamptz
) ON COMMIT DROP;
