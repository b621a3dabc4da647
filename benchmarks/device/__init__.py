"""Benchmarks of devices: `make bench-gpu`, `make bench-mps`."""
