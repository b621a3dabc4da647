"""Attacks on plainfilm, each a seeded program that counts what held: short in `make test`, whole in `make faults`."""
