"""Side-by-side timings, as ratios; `make bench` runs them all."""
