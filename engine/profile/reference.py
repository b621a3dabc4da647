"""The reference pipeline: the report's recipe as one writes it with Pillow, torchvision and PyTorch, nothing tuned.

    python -m engine.profile.reference DIR --epochs 1              a folder with one subfolder a class
    python -m engine.profile.reference DIR --manifest FILE.csv     columns path, label and split (train, val)
    python -m engine.profile.reference DIR --stored                a folder of betons

Every file is decoded anew in every epoch.  Nothing of plainfilm is used, except that --stored makes one change: it
reads frames that were decoded once from betons, through their memory map.
With --serve it takes commands as JSON lines on stdin, such as {"do": "train", "steps": 2, "seconds": 0.2}, and answers
each with one.
"""

# N batch, H W rows and columns of the crop, K classes

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from engine.device import choose_device
from engine.networks.extras import import_torchvision
from engine.profile.probes import synchronise
from loaders.beton.reader import Beton

CROP_SHARE = 0.7
VAL_SHARE = 0.2
EXTENSIONS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
LEARNING_RATE = 1e-3

Sets = tuple[Dataset, Dataset, int]  # training, validation, number of classes
Transform = Callable[[Image.Image], Any]


# ---- data


def transforms_for(crop: int) -> tuple[Transform, Transform, Transform]:
    """To a square; from there to a training crop; and to a validation crop: float32 (1, H, W) in [-1, 1]."""
    transforms = import_torchvision("torchvision.transforms")
    stored = crop + 2 * round((crop / CROP_SHARE - crop) / 2)
    smooth = transforms.InterpolationMode.BILINEAR
    # rotation and zoom in one pass: the quicker of the two ways to write it
    zooms = [transforms.RandomAffine(15, scale=scale, interpolation=smooth) for scale in ((0.85, 0.95), (1.05, 1.15))]
    ending = [transforms.CenterCrop(crop), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    return (
        transforms.Resize((stored, stored)),
        transforms.Compose([transforms.RandomChoice(zooms), *ending]),
        transforms.Compose(ending),
    )


class Radiographs(Dataset):
    """Crops and labels, each with the seconds that reading and augmenting it took.  read: the square of a sample."""

    def __init__(self, read: Callable[[int], Image.Image], labels: Sequence[int], to_crop: Transform) -> None:
        self.read, self.labels, self.to_crop = read, labels, to_crop

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, float, float]:
        begin = time.perf_counter()
        square = self.read(index)
        decoded = time.perf_counter()
        crop_1HW = self.to_crop(square)
        return crop_1HW, self.labels[index], decoded - begin, time.perf_counter() - decoded


def decode_file(paths: Sequence[Path], to_square: Transform, index: int) -> Image.Image:
    """Decode a file."""
    with Image.open(paths[index]) as file:
        return to_square(file.convert("L"))


def copy_frame(beton: Beton, index: int) -> Image.Image:
    """Copy a frame that was decoded once out of a beton's memory map."""
    return Image.fromarray(beton.frame(index))


def rows_of_folder(folder: Path, seed: int) -> list[tuple[str, str, str]]:
    """Path, label and split of every picture below one subfolder a class; images are split at random."""
    files = sorted(path for path in folder.glob("*/**/*") if path.suffix.lower() in EXTENSIONS)
    random.Random(seed).shuffle(files)
    num_val = round(VAL_SHARE * len(files))
    splits = ["val"] * num_val + ["train"] * (len(files) - num_val)
    return [(str(path), path.relative_to(folder).parts[0], split) for path, split in zip(files, splits, strict=True)]


def rows_of_manifest(manifest: Path) -> list[tuple[str, str, str]]:
    """Path, label and split of a table's rows; those of other splits, or of none, are left out."""
    with manifest.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [(row["path"], row["label"], row["split"]) for row in csv.DictReader(file)]
    return [row for row in rows if row[2] in ("train", "val")]


def open_betons(arguments: argparse.Namespace) -> Sets:
    """Training and validation set from train.beton and val.beton."""
    train, val = (Beton(arguments.folder / name) for name in ("train.beton", "val.beton"))
    _, to_training_crop, to_crop = transforms_for(arguments.size)
    train_set, val_set = (
        Radiographs(partial(copy_frame, beton), beton.label_N.tolist(), last)
        for beton, last in ((train, to_training_crop), (val, to_crop))
    )
    return train_set, val_set, len(train.facts.classes)


def open_files(arguments: argparse.Namespace) -> Sets:
    """Training and validation set from files."""
    folder, manifest = arguments.folder, arguments.manifest
    rows = rows_of_manifest(manifest) if manifest else rows_of_folder(folder, arguments.seed)
    classes = sorted({label for _, label, _ in rows})
    to_square, to_training_crop, to_crop = transforms_for(arguments.size)

    def chosen(wanted: str, last: Transform) -> Radiographs:
        paths = [folder / path for path, _, split in rows if split == wanted]
        labels = [classes.index(label) for _, label, split in rows if split == wanted]
        return Radiographs(partial(decode_file, paths, to_square), labels, last)

    return chosen("train", to_training_crop), chosen("val", to_crop), len(classes)


# ---- network and training


def make_network(num_classes: int, crop: int) -> nn.Module:
    """The report's: frames (N, 1, H, W) to logits (N, K)."""
    layers: list[nn.Module] = []
    channels = 1
    for channels_out in (32, 64, 128, 256, 256):
        layers += [nn.Conv2d(channels, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()]
        layers += [nn.MaxPool2d(2, 2)]
        channels = channels_out
    flat = channels * (crop // 32) ** 2
    layers += [nn.Flatten(), nn.Linear(flat, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, num_classes)]
    return nn.Sequential(*layers)


class Clock:
    """Seconds by part.  What is queued on a GPU is waited for, so that it counts where it belongs."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.begin = self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        """End a part."""
        synchronise(self.device)
        now = time.perf_counter()
        self.add(part, now - self.last)
        self.last = now

    def add(self, part: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


class Reference:
    """The training in progress: loaders, network, optimiser."""

    def __init__(self, sets: Sets, arguments: argparse.Namespace) -> None:
        train_set, val_set, num_classes = sets
        self.device, self.workers = choose_device(arguments.device), arguments.workers
        options = {"batch_size": arguments.batch_size, "num_workers": self.workers}
        options["persistent_workers"] = self.workers > 0
        self.train_loader: DataLoader = DataLoader(train_set, shuffle=True, **options)
        self.val_loader: DataLoader = DataLoader(val_set, **options)
        self.network = make_network(num_classes, arguments.size).to(self.device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        self.loss = nn.CrossEntropyLoss()

    def train(self, batches: Iterable[Any]) -> dict[str, Any]:
        """A training step on each batch."""
        self.network.train()
        clock = Clock(self.device)
        images, steps, correct, loss_sum = 0, 0, 0, 0.0
        for frames_N1HW, labels_N, decoding_N, augmenting_N in batches:
            clock.lap("wait")
            frames_N1HW, labels_N = frames_N1HW.to(self.device), labels_N.to(self.device)
            clock.lap("transfer")
            self.optimiser.zero_grad()
            logits_NK = self.network(frames_N1HW)
            loss = self.loss(logits_NK, labels_N)
            clock.lap("forward")
            loss.backward()
            clock.lap("backward")
            self.optimiser.step()
            clock.lap("optimiser")
            images, steps = images + len(labels_N), steps + 1
            loss_sum += loss.item() * len(labels_N)
            correct += (logits_NK.argmax(1) == labels_N).sum().item()
            clock.add("decode", decoding_N.sum().item())
            clock.add("augment", augmenting_N.sum().item())
            clock.lap("other")
        if not self.workers:  # what the loader does while it is waited for; workers do it beside the training
            clock.seconds["wait"] -= clock.seconds["decode"] + clock.seconds["augment"]
        return {
            "images": images,
            "steps": steps,
            "seconds": clock.last - clock.begin,
            "parts": clock.seconds,
            "overlapped": ["decode", "augment"] if self.workers else [],
            "loss": loss_sum / images,
            "accuracy": correct / images,
        }

    @torch.no_grad()
    def validate(self, batches: Iterable[Any]) -> dict[str, Any]:
        """Accuracy, without augmentation."""
        self.network.eval()
        begin, images, correct = time.perf_counter(), 0, 0
        for frames_N1HW, labels_N, *_ in batches:
            logits_NK = self.network(frames_N1HW.to(self.device))
            correct += (logits_NK.argmax(1) == labels_N.to(self.device)).sum().item()
            images += len(labels_N)
        return {"images": images, "seconds": time.perf_counter() - begin, "accuracy": correct / images}


# ---- serving


def endless(loader: DataLoader) -> Iterator[Any]:
    """Batches, epoch after epoch."""
    while True:
        yield from loader


def for_a_while(batches: Iterator[Any], count: int, seconds: float) -> Iterator[Any]:
    """So many of the batches at least, and for so many seconds at least."""
    begin, given = time.perf_counter(), 0
    while given < count or time.perf_counter() - begin < seconds:
        yield next(batches)
        given += 1


def serve(reference: Reference) -> None:
    """Carry out one command after another, each a line of JSON."""
    answer({"device": str(reference.device), "threads": torch.get_num_threads(), "torch": torch.__version__})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "train":
            batches = endless(reference.train_loader)
            reference.train(for_a_while(batches, 1, 0))  # not counted: caches are warm then, and workers at their pace
            answer(reference.train(for_a_while(batches, command["steps"], command["seconds"])))
        elif command["do"] == "validate":
            batches = endless(reference.val_loader)
            if reference.workers:
                next(batches)
            answer(reference.validate(for_a_while(batches, max(1, reference.workers), 0)))
        else:
            return


def answer(content: dict[str, Any]) -> None:
    """One line of JSON to the parent."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Train some epochs with a line for each, or serve."""
    parser = argparse.ArgumentParser(description="The reference pipeline, to compare plainfilm with.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with one subfolder a class")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="table of path, label and split; paths below DIR")
    parser.add_argument("--stored", action="store_true", help="DIR holds betons: read their frames instead")
    parser.add_argument("--size", type=int, default=224, help="side of the crop")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="worker processes of the DataLoader")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads; 0 leaves torch's choice")
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "mps", "cpu"])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="take commands as JSON lines on stdin instead")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    reference = Reference(open_betons(arguments) if arguments.stored else open_files(arguments), arguments)
    if arguments.serve:
        serve(reference)
        return
    for epoch in range(1, arguments.epochs + 1):
        trained, validated = reference.train(reference.train_loader), reference.validate(reference.val_loader)
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in trained["parts"].items())
        sys.stdout.write(
            f"epoch {epoch}  loss {trained['loss']:.4f}  accuracy {trained['accuracy']:.4f}  "
            f"validation accuracy {validated['accuracy']:.4f}  {trained['seconds']:.1f} s ({parts})  "
            f"validation {validated['seconds']:.1f} s\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
