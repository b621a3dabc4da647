"""Settings that every benchmark shares."""

ROUNDS = 7
THREADS = 2  # of every rival: threads, worker processes, torch's own
BATCH = 32
