"""Evaluation: a trained network on held-out betons."""
