"""Early convergence: a score that is too good too soon speaks of the data, not of the network."""

from __future__ import annotations

EARLY_F1 = 0.99  # of validation after one epoch; the report saw 99 %, and its data told the class without the lungs


def early_convergence(first_f1: float) -> str:
    """What a validation F1 after the first epoch gives reason to say; "" where it gives none."""
    if first_f1 < EARLY_F1:
        return ""
    return f"validation F1 {100 * first_f1:.1f} % after one epoch: suspect the data, and look at `audit`"
