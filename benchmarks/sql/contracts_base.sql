-- The customers of the benchmark's shop, of whom its orders name 100,000.
CREATE TABLE shop.customers (
    merchant_id bigint NOT NULL REFERENCES shop.merchants,
    id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, id)
);
INSERT INTO shop.customers SELECT mod(n, 10), n, '2020-01-01' FROM generate_series(0, 99999) AS n;
