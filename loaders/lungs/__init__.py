"""Masks of the lungs: which film each is of, and the command `segment`."""
