"""The only place that speaks SQL.

One module per subject; its statements lie in `sql/<subject>/`, one file each. Functions take a
`Connection`, return domain types and never commit.
"""
