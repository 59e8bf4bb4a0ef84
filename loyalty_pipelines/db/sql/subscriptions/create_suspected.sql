-- What the classes suspect: a finding as soon as it is ripe, a look at that time before. next_look_at: when what is ripe
-- already has to be looked at again. Gone at the end of the transaction.
CREATE TEMPORARY TABLE suspected (
    merchant_id text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    object_type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    policy text COLLATE "C" NOT NULL,
    amount_at_risk numeric NOT NULL,
    currency text COLLATE "C",
    evidence jsonb NOT NULL,
    ripe_at timestamptz NOT NULL,
    next_look_at timestamptz
) ON COMMIT DROP;
