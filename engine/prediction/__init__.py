"""Prediction: files in, calibrated probabilities or a reason to abstain out."""
