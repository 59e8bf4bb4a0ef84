"""Measures the figures that the project promises: both sides in one run, as ratios. `make bench` runs all."""
