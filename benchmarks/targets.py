"""Targets: the contests by name, and the least ratio to reach over each rival.

They were set with one processor in mind, two cores of an AMD EPYC with AVX-512, and a ratio is one processor's:
rivals make more or less of its instructions, and a step gains the more over stock PyTorch the faster products are
beside memory and page faults. On an EPYC with AVX2 alone: affine kernel over OpenCV 1.19 instead of 2.0, step at
224 over stock 1.84 instead of the 3.5 that were asked (docs/LOG.md, 2026-11-24). ARITHMETIC is over MKL's sgemm,
which is faster on an Intel than on an AMD. A target missed elsewhere concerns that processor first;
bench-compare asks whether a change has made anything slower, on the same kind of processor.
"""

from dataclasses import dataclass

AFFINE = "affine kernel, 320 to 224"
CROP = "crop kernel, 320 to 224"
EVALUATION = "evaluation batches"
TRAINING = "training batches"
EVALUATION_THREADS = "evaluation batches, plain threads"
TRAINING_THREADS = "training batches, plain threads"
FILES = "training batches from files"
PHANTOM_FILES = "training batches from 640² PNG"
CONVERSION = "conversion of 2,060 files"
LUNGS = "conversion of the lungs alone"
CHECKSUMS = "first epoch, with checksums"
EVALUATION_CHECKSUMS = "first evaluation, with checksums"
AFFINE_SCALING = "affine kernel, two threads"
TRAINING_SCALING = "training batches, two threads"
STEP = "training, 64"
FINDINGS = "training of 14 findings, 64"
STEP_224 = "training step, 224"
STEP_224_MIXED = "training step in bfloat16, 224"
ARITHMETIC = "arithmetic of a step, 224"
ARITHMETIC_MIXED = "arithmetic of a step in bfloat16, 224"
RECORDING = "training with records, 64"
REFERENCE_224 = "training epoch from files, 224"
REFERENCE_128 = "training epoch from files, 128"
ORDER = (  # of the table
    AFFINE,
    CROP,
    EVALUATION,
    TRAINING,
    EVALUATION_THREADS,
    TRAINING_THREADS,
    FILES,
    PHANTOM_FILES,
    CONVERSION,
    LUNGS,
    CHECKSUMS,
    EVALUATION_CHECKSUMS,
    AFFINE_SCALING,
    TRAINING_SCALING,
    STEP,
    FINDINGS,
    STEP_224,
    STEP_224_MIXED,
    ARITHMETIC,
    ARITHMETIC_MIXED,
    REFERENCE_224,
    REFERENCE_128,
    RECORDING,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The median ratio over rivals whose name begins so is to be `least` or more."""

    what: str
    rival: str
    least: float


TARGETS = (
    Target(what=AFFINE, rival="OpenCV", least=1.5),
    Target(what=AFFINE, rival="DALI", least=8.0),
    Target(what=EVALUATION, rival="FFCV + our crop", least=1.5),
    Target(what=TRAINING, rival="FFCV + torchvision", least=5.0),
    Target(what=TRAINING, rival="FFCV + kornia", least=5.0),
    Target(what=TRAINING, rival="FFCV + grid_sample", least=5.0),
    Target(what=TRAINING, rival="litdata", least=5.0),
    Target(what=TRAINING, rival="webdataset", least=5.0),
    Target(what=FILES, rival="DataLoader", least=40.0),
    Target(what=CONVERSION, rival="PIL loop", least=1.8),
    Target(what=LUNGS, rival="whole films", least=0.7),
    Target(what=CHECKSUMS, rival="later epochs", least=0.97),
    Target(what=EVALUATION_CHECKSUMS, rival="later epochs", least=0.9),
    Target(what=AFFINE_SCALING, rival="one thread", least=1.9),
    Target(what=TRAINING_SCALING, rival="one thread", least=1.8),
    Target(what=FINDINGS, rival="14 classes", least=0.97),
    Target(what=STEP_224, rival="stock", least=3.5),
    Target(what=STEP_224_MIXED, rival="stock", least=8.0),
    Target(what=STEP_224_MIXED, rival="autocast", least=1.3),
    Target(what=STEP_224_MIXED, rival="torch.compile", least=1.3),
    Target(what=ARITHMETIC, rival="sgemm", least=0.8),
    Target(what=ARITHMETIC_MIXED, rival="product", least=0.7),
    Target(what=REFERENCE_224, rival="reference", least=7.0),
    Target(what=REFERENCE_128, rival="reference", least=8.0),
    Target(what=RECORDING, rival="nothing recorded", least=1 / 1.03),
)


def target_of(what: str, rival: str) -> Target | None:
    """The target of this pair; most have none."""
    return next((target for target in TARGETS if target.what == what and rival.startswith(target.rival)), None)


def place_of(what: str) -> int:
    """Where a contest stands in the table; one that is not listed comes last."""
    return ORDER.index(what) if what in ORDER else len(ORDER)


def shortfall(what: str, rival: str, ratio: float) -> float:
    """By how much a ratio is below its target; 0 where it is met, or there is none."""
    target = target_of(what, rival)
    return max(0.0, target.least - ratio) if target else 0.0


def verdict(what: str, rival: str, ratio: float) -> str:
    """`1.5 met`, or by how much of the target it was missed; empty where there is no target."""
    target = target_of(what, rival)
    if target is None:
        return ""
    missed = shortfall(what, rival, ratio)
    return f"{target.least:.3g} missed by {missed:.2f}" if missed else f"{target.least:.3g} met"
