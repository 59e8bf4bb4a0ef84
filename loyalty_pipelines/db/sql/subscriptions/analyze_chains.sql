-- What each subscription was paid for, and the payments that classes look at: their joins are planned for their size.
ANALYZE paid_chains, odd_payments;
