-- As analyze_lines.sql, for the resolved lines. Safe to repeat.
ANALYZE opening_balances;
