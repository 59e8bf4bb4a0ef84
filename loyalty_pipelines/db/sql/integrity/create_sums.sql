-- What the entries of an account add up to, after its base; gone at the end of the transaction. Without a base (NULL) they
-- are all that there are: a million rows that are narrower for it.
CREATE TEMPORARY TABLE integrity_sums (
    merchant_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    base_entries bigint,
    base_balance bigint,
    base_stamps bigint,
    base_digest bigint,
    entries bigint NOT NULL,
    points numeric NOT NULL,
    stamps bigint NOT NULL,
    links bigint NOT NULL,
    digest bigint NOT NULL,
    is_adding_up boolean NOT NULL,
    share bigint NOT NULL,
    expired_seq bigint NOT NULL,
    times_earned_again bigint NOT NULL
) ON COMMIT DROP;
