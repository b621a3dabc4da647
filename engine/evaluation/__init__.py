"""The evaluation of a run: scores, their intervals, and what speaks against them."""
