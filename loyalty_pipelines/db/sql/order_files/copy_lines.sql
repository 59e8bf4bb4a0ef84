-- Fills the stage; run through the driver, which streams the rows.
COPY order_file_lines (line, order_id, customer_id, total, refunded, currency, status, paid_at) FROM STDIN;
