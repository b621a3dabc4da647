"""Prediction: scores of new files."""
