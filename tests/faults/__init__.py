"""Attacks on plainfilm: seeded programs that count what held; short in `make test-extras`, whole in `make faults`."""
