"""Batches: from a beton to arrays ready for training."""
