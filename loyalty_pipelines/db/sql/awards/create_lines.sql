-- Holds one batch between its statements; emptied by every commit and rollback. Once per session.
CREATE TEMPORARY TABLE IF NOT EXISTS award_lines (
    order_id text COLLATE "C" NOT NULL,
    order_customer_id text COLLATE "C",
    customer_id text COLLATE "C",
    account_id bigint,
    outcome text NOT NULL,
    detail text,
    order_target_points integer NOT NULL,
    order_target_stamps integer NOT NULL,
    target_points integer NOT NULL,
    target_stamps integer NOT NULL,
    program_version integer,
    paid_at timestamptz,
    changed_at timestamptz,
    is_tracked boolean NOT NULL,
    in_force_points integer NOT NULL,
    waived_points integer NOT NULL,
    stamps_in_force integer NOT NULL,
    last_reference_seq integer NOT NULL,
    points_wanted integer NOT NULL
) ON COMMIT DELETE ROWS;
