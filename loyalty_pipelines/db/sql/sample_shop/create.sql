-- A small shop of its own, for the demo, for imported order files, for tests and benchmarks. Safe to repeat.
CREATE SCHEMA IF NOT EXISTS sample_shop;

CREATE TABLE IF NOT EXISTS sample_shop.merchants (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    timezone text NOT NULL,
    currency text NOT NULL,
    locale text NOT NULL DEFAULT 'en',
    is_active boolean NOT NULL DEFAULT true
);

CREATE TABLE IF NOT EXISTS sample_shop.customers (
    merchant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    email text,
    name text,
    locale text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id)
);

CREATE TABLE IF NOT EXISTS sample_shop.orders (
    merchant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    total numeric,
    points_redeemed numeric NOT NULL DEFAULT 0,
    currency text,
    status text,
    paid_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id)
);

CREATE INDEX IF NOT EXISTS orders_by_change ON sample_shop.orders (updated_at);

CREATE TABLE IF NOT EXISTS sample_shop.refunds (
    merchant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    refunded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id)
);

CREATE INDEX IF NOT EXISTS refunds_by_order ON sample_shop.refunds (merchant_id, order_id);
