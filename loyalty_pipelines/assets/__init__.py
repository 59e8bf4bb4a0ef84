"""One module per subject. An asset loads, decides and saves; loops and rules are one layer down, in `db/`."""
