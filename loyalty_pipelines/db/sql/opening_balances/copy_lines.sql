-- Fills the stage; run through the driver, which streams the rows.
COPY opening_lines (line, merchant_id, customer_id, points, active_at, local_active_at) FROM STDIN;
