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
    points_wanted integer NOT NULL,
    gone_points integer NOT NULL,
    -- Whether the line has something to write. A boolean of its own, because the planner takes half the rows for true
    -- where it would take a comparison of texts for one row in two hundred, and then joins by nested loops.
    is_changed boolean NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN NOT is_tracked THEN outcome = 'earning'
            WHEN outcome IN ('earning', 'unpaid', 'no_programme')
                THEN target_points <> in_force_points - waived_points OR target_stamps <> stamps_in_force
            ELSE false
        END
    ) STORED
) ON COMMIT DELETE ROWS;
