"""Segmentation of the lungs: the net, its training in folds by patient, and its test."""
