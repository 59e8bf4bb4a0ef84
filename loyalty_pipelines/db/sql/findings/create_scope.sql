-- What a proof has looked at, where it is not everything: only findings of these objects are closed. Gone at the end of the
-- transaction.
CREATE TEMPORARY TABLE found_scope (
    merchant_id text COLLATE "C" NOT NULL,
    object_type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL
) ON COMMIT DROP;
