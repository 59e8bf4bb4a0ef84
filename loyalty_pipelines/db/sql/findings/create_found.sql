-- What is wrong, as the proof sees it now; gone at the end of the transaction.
CREATE TEMPORARY TABLE found (
    merchant_id text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    object_type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    points_difference numeric NOT NULL,
    evidence jsonb NOT NULL
) ON COMMIT DROP;
