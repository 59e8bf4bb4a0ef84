-- Settles a redemption by hand, so that no award and no sweep asks for its points again. The caller has locked its
-- account. Safe to repeat; index holds_pkey.
UPDATE loyalty.holds AS h
SET
    status = 'waived',
    settled_at = now()
WHERE h.merchant_id = :merchant_id AND h.order_id = :order_id;
