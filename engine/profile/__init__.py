"""The profile: the reference pipeline and the engine side by side."""
