-- Tells the planner how long the file is: a temporary table has no statistics of its own. Safe to repeat.
ANALYZE opening_lines;
