"""How well the audit works: `make audit-quality`, `make kind`."""
