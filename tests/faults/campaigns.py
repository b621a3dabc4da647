"""The list of campaigns, in the order of docs/RELIABILITY.md."""

from __future__ import annotations

from tests.faults import (
    beton_mutations,
    checkpoints,
    convert_kill,
    disk,
    fuzz,
    hostile_images,
    hostile_names,
    live_files,
    numbers,
    privacy,
    train_kill,
    two_writers,
    worker_death,
)
from tests.faults.tally import Campaign

CAMPAIGNS: tuple[Campaign, ...] = (
    convert_kill.CAMPAIGN,
    two_writers.CAMPAIGN,
    worker_death.CAMPAIGN,
    beton_mutations.CAMPAIGN,
    fuzz.CAMPAIGN,
    disk.CAMPAIGN,
    live_files.CAMPAIGN,
    hostile_images.CAMPAIGN,
    hostile_names.CAMPAIGN,
    privacy.CAMPAIGN,
    train_kill.CAMPAIGN,
    checkpoints.CAMPAIGN,
    numbers.CAMPAIGN,
)
