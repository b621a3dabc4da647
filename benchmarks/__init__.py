"""Speed, as ratios to rivals that are timed in turns in one run: `make bench`."""
