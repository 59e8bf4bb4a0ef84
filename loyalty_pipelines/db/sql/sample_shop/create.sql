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

-- What shops that sell subscriptions have besides. Made later than the tables above: an older sample shop gets it, too.
ALTER TABLE sample_shop.orders ADD COLUMN IF NOT EXISTS plan_id text COLLATE "C";
ALTER TABLE sample_shop.orders ADD COLUMN IF NOT EXISTS discount numeric NOT NULL DEFAULT 0;
ALTER TABLE sample_shop.orders ADD COLUMN IF NOT EXISTS points_discount numeric;

CREATE TABLE IF NOT EXISTS sample_shop.plans (
    merchant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    price numeric NOT NULL,
    currency text NOT NULL,
    billing_interval text NOT NULL DEFAULT 'month',
    allows_multiple boolean NOT NULL DEFAULT false,
    PRIMARY KEY (merchant_id, id)
);

CREATE TABLE IF NOT EXISTS sample_shop.subscriptions (
    merchant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL DEFAULT CAST(gen_random_uuid() AS text),
    customer_id text COLLATE "C",
    plan_id text COLLATE "C",
    order_id text COLLATE "C",
    status text NOT NULL DEFAULT 'active',
    price numeric,
    currency text,
    period_start timestamptz,
    period_end timestamptz,
    cancelled_at timestamptz,
    is_complimentary boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id)
);

CREATE INDEX IF NOT EXISTS subscriptions_by_customer ON sample_shop.subscriptions (merchant_id, customer_id);
CREATE INDEX IF NOT EXISTS subscriptions_by_order ON sample_shop.subscriptions (merchant_id, order_id);

CREATE TABLE IF NOT EXISTS sample_shop.payments (
    merchant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL DEFAULT CAST(gen_random_uuid() AS text),
    order_id text COLLATE "C",
    subscription_id text COLLATE "C",
    customer_id text COLLATE "C",
    plan_id text COLLATE "C",
    amount numeric NOT NULL,
    refunded numeric NOT NULL DEFAULT 0,
    currency text,
    status text NOT NULL DEFAULT 'pending',
    captured_at timestamptz,
    period_start timestamptz,
    period_end timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id)
);

CREATE INDEX IF NOT EXISTS payments_by_order ON sample_shop.payments (merchant_id, order_id);
CREATE INDEX IF NOT EXISTS payments_by_subscription ON sample_shop.payments (merchant_id, subscription_id);
CREATE INDEX IF NOT EXISTS payments_by_customer ON sample_shop.payments (merchant_id, customer_id);
-- By hash: an imported file's customer may be a text that is too long for a row of a tree.
CREATE INDEX IF NOT EXISTS orders_by_customer ON sample_shop.orders USING hash (customer_id);
