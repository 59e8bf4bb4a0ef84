-- Orders and redemptions to look at closely; gone at the end of the transaction.
CREATE TEMPORARY TABLE integrity_orders (
    merchant_id text COLLATE "C" NOT NULL,
    reference_type text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL
) ON COMMIT DROP;
