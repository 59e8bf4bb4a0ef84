"""Time that passes: the database's clock can't be moved, so everything that a merchant has happened longer ago."""

from sqlalchemy import text

from tests.shop import Shop

INSTANTS = """
SELECT c.table_schema || '.' || c.table_name AS relation, array_agg(CAST(c.column_name AS text)) AS columns
FROM information_schema.columns AS c
JOIN information_schema.tables AS t USING (table_schema, table_name)
WHERE c.table_schema IN ('loyalty', 'sample_shop')
    AND c.data_type = 'timestamp with time zone'
    AND t.table_type = 'BASE TABLE'
    AND EXISTS (
        SELECT FROM information_schema.columns AS m
        WHERE (m.table_schema, m.table_name, m.column_name) = (c.table_schema, c.table_name, 'merchant_id')
    )
GROUP BY 1
"""
# A mail's key and its text name a date, too. In two steps: one mail's new key may be another one's old one.
MAILS = (
    """
    UPDATE loyalty.notifications SET
        dedupe_key = 'moving/' || dedupe_key,
        payload = jsonb_set(
            payload, '{expires_at}', to_jsonb(CAST(payload ->> 'expires_at' AS timestamptz) - CAST(:passed AS interval))
        )
    WHERE merchant_id = :merchant AND payload ? 'expires_at'
    """,
    """
    UPDATE loyalty.notifications SET
        dedupe_key = CASE template
            WHEN 'loyalty_points_expiring' THEN 'expiring/' || split_part(dedupe_key, '/', 3) || '/'
                || (CAST(split_part(dedupe_key, '/', 4) AS date) - CAST(:days AS integer))
            ELSE substr(dedupe_key, 8)
        END
    WHERE merchant_id = :merchant AND dedupe_key LIKE 'moving/%'
    """,
)
# When an entry was recorded is sealed. What a seal would not have found before, it doesn't find after it either.
SEALS = """
UPDATE loyalty.account_seals AS z SET digest = z.digest # moved.change
FROM (
    SELECT
        k.account_id,
        bit_xor(
            loyalty.entry_digest(
                e.seq, e.kind, e.points, e.balance_after, e.stamps, e.reference_type, e.reference_id, e.reference_seq,
                e.recorded_at
            )
            # loyalty.entry_digest(
                e.seq, e.kind, e.points, e.balance_after, e.stamps, e.reference_type, e.reference_id, e.reference_seq,
                e.recorded_at - CAST(:passed AS interval)
            )
        ) AS change
    FROM loyalty.account_seals AS k
    JOIN loyalty.ledger_entries AS e USING (merchant_id, account_id)
    WHERE k.merchant_id = :merchant AND e.seq <= k.entries
    GROUP BY k.account_id
) AS moved
WHERE z.merchant_id = :merchant AND z.account_id = moved.account_id
"""


class Clock:
    """Lets days pass at merchants whose clocks never change: a day is 24 hours there.

    Every instant that the ledger and the sample shop have of a merchant moves back, those of ledger entries, too. No
    trigger sees it: that would keep entries as they are, and put all orders into the inbox.
    """

    def __init__(self, shop: Shop) -> None:
        self._engine = shop.engine
        self._moves = []
        for row in shop.rows(INSTANTS):
            changes = ", ".join(f"{column} = {column} - CAST(:passed AS interval)" for column in row.columns)
            self._moves.append(f"UPDATE {row.relation} SET {changes} WHERE merchant_id = :merchant")

    def pass_days(self, merchant: str, days: int) -> None:
        """Let so many days pass at a merchant."""
        values = {"merchant": merchant, "days": days, "passed": f"{24 * days} hours"}
        with self._engine.begin() as conn:
            conn.execute(text("SET LOCAL session_replication_role = replica"))
            for statement in (SEALS, *self._moves, *MAILS):
                conn.execute(text(statement), values)
