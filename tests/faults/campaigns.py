"""The list of campaigns, in the order of docs/RELIABILITY.md."""

from tests.faults import (
    test_betons,
    test_checkpoints,
    test_convert_kill,
    test_disk,
    test_fuzz,
    test_hostile_images,
    test_hostile_names,
    test_live_files,
    test_numbers,
    test_privacy,
    test_train_kill,
    test_two_writers,
    test_worker_death,
)
from tests.faults.campaign import Campaign

CAMPAIGNS: tuple[Campaign, ...] = (
    test_convert_kill.CAMPAIGN,
    test_two_writers.CAMPAIGN,
    test_worker_death.CAMPAIGN,
    test_betons.CAMPAIGN,
    test_fuzz.CAMPAIGN,
    test_disk.CAMPAIGN,
    test_live_files.CAMPAIGN,
    test_hostile_images.CAMPAIGN,
    test_hostile_names.CAMPAIGN,
    test_privacy.CAMPAIGN,
    test_train_kill.CAMPAIGN,
    test_checkpoints.CAMPAIGN,
    test_numbers.CAMPAIGN,
)
