-- What is wrong, as the proof sees it now, and what it has looked at where that is not everything; gone at the end of the
-- transaction. amount_at_risk: NULL where the points are what it costs.
CREATE TEMPORARY TABLE found (
    merchant_id text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    object_type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    points_difference numeric NOT NULL,
    evidence jsonb NOT NULL,
    policy text COLLATE "C",
    amount_at_risk numeric,
    currency text COLLATE "C"
) ON COMMIT DROP;
