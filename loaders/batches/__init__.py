"""Batches: arrays ready for training, made from a beton."""
