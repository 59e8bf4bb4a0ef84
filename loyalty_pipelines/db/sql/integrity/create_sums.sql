-- What the entries of an account add up to, after its base; gone at the end of the transaction.
CREATE TEMPORARY TABLE integrity_sums (
    merchant_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    base_entries bigint NOT NULL,
    base_balance bigint NOT NULL,
    base_stamps bigint NOT NULL,
    base_digest bigint NOT NULL,
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
