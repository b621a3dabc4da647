"""Training: from betons to a run folder."""
