-- Accounts to look at closely, from their base on; gone at the end of the transaction.
CREATE TEMPORARY TABLE integrity_suspects (
    merchant_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    base_entries bigint NOT NULL,
    base_balance bigint NOT NULL,
    base_stamps bigint NOT NULL
) ON COMMIT DROP;
