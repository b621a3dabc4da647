"""An export: a run as one ONNX file that takes stored frames as they are and gives calibrated probabilities."""

# N batch, S side of a stored frame, H W rows and columns of the crop, K classes or findings

import importlib.util
import json
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.config import ExportConfig, check_out
from engine.device import choose_policy
from engine.evaluate.trained import Trained, load_trained
from engine.export.model_card import CARD, card_of
from engine.statistics.findings import POINT
from kernels.crops import MIDDLE, SCALE
from loaders import __version__
from loaders.atomic_file import locked, publish_bytes
from loaders.beton.format import frames_text
from loaders.errors import ConfigError, IntegrityError
from loaders.output import Line, Parts, PhaseProgress, path_line

FRAMES, PROBABILITIES = "frames", "probabilities"  # names of input and output
TOLERANCE = 1e-4  # largest difference of a probability between the file and the run's own network
BATCHES = (1, 3)  # that parity is tried with


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """The files that were written.  difference: largest of a probability, file against network.  size: in bytes."""

    model: Path
    card: Path
    classes: tuple[str, ...]
    stored: int
    difference: float
    size: int


class Deployed(nn.Module):
    """A network with what comes before and after it: frames_NSS uint8 → probability_NK float32.

    Probabilities are of classes, which add up to 1, or that each finding is present.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network, self.crop = trained.network, trained.state["crop"]
        self.margin = (trained.state["stored"] - self.crop) // 2
        self.findings = trained.task == "findings"
        self.temperature: float | torch.Tensor
        if self.findings:
            self.register_buffer("temperature", torch.tensor(temperatures(trained), dtype=torch.float32))
        else:
            self.temperature = trained.decision.temperature

    def forward(self, frames_NSS: torch.Tensor) -> torch.Tensor:
        start, end = self.margin, self.margin + self.crop
        level_N1HW = frames_NSS[:, start:end, start:end].to(torch.float32).unsqueeze(1)
        logits_NK = self.network((level_N1HW - float(MIDDLE)) * float(SCALE))
        scaled_NK = logits_NK / self.temperature
        return torch.sigmoid(scaled_NK) if self.findings else torch.softmax(scaled_NK, 1)


def temperatures(trained: Trained) -> list[float]:
    """Of each finding."""
    return [decision.temperature for decision in trained.findings.by_finding]


def export(config: ExportConfig, progress: PhaseProgress = lambda phase, done, total: None) -> Exported:
    """Write the run's best weights as ONNX, with a model card, once the file gives the network's probabilities.

    Errors: ConfigError without the extra `export`; CheckpointError for a run without weights; IntegrityError if file
    and network differ by more than TOLERANCE; LockedError; StorageError.
    """
    out = config.model
    check_out(out)
    onnx = require_exporter()
    trained = load_trained(config.run)
    trained.refuse_asked("export", "share the run's folder and the name of the model")
    with locked(out.parent):
        progress("export", 0, 3)
        side = trained.state["stored"]
        probe_NSS = np.random.default_rng(0).integers(0, 256, (max(BATCHES), side, side), np.uint8)  # every grey level
        offset_N = np.arange(len(probe_NSS), dtype=np.int64) * side**2
        expected_NK = trained.probabilities(probe_NSS.reshape(-1), offset_N, choose_policy("cpu", "off", "off", 0))
        model = onnx_model(trained)
        progress("export", 1, 3)
        describe(onnx, model, trained)
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString()
        difference = largest_difference(content, probe_NSS, expected_NK)
        progress("export", 2, 3)
        if not difference <= TOLERANCE:
            raise IntegrityError(
                f"{config.run}: as ONNX its probabilities differ by {difference:.2g}, expected at most {TOLERANCE:g}; "
                "nothing was written: try other versions of torch and onnxscript"
            )
        publish_bytes(out, content)
        publish_bytes(out.with_name(CARD), card_of(trained, out.name).encode())
        progress("export", 3, 3)
    return Exported(
        model=out, card=out.with_name(CARD), classes=trained.classes, stored=side, difference=difference,
        size=len(content),
    )  # fmt: skip


def require_exporter() -> Any:
    """The module onnx, once all that an export needs is there.  Errors: ConfigError."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"export: {name} is not installed, expected it; pip install 'plainfilm[export]'")
    return importlib.import_module("onnx")


def onnx_model(trained: Trained) -> Any:
    """The model as ONNX, with a dynamic number of frames, and without any path of this machine."""
    state = trained.state
    if hasattr(trained.network, "fused"):
        trained.network.fused = False  # type: ignore[assignment]
    deployed = Deployed(trained).eval()
    example_NSS = torch.zeros(2, state["stored"], state["stored"], dtype=torch.uint8)
    with quiet_exporter():
        program = torch.onnx.export(
            deployed, (example_NSS,), dynamo=True, input_names=[FRAMES], output_names=[PROBABILITIES],
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=1 << 20)},), verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        part.ClearField("metadata_props")  # stack traces among them
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    return model


@contextmanager
def quiet_exporter() -> Any:
    """Silence torch's own deprecations and log while it exports; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):
                warnings.filterwarnings("ignore", category=category)
            yield
    finally:
        logger.setLevel(before)


def describe(onnx: Any, model: Any, trained: Trained) -> None:
    """Write what a user must know into the model's own metadata."""
    state = trained.state
    facts = {
        "classes": json.dumps(list(trained.classes)),
        "positive": state["positive"],
        "crop": state["crop"],
        "stored": state["stored"],
        "fit": state["fit"],
        **({} if trained.lungs == "off" else {"lungs": trained.lungs, "segmenter": trained.segmenter}),
        "network": state.get("network", "cnn"),
        **settled_facts(trained),
        "conversion_id": state["conversion_id"],
        "checkpoint_sha256": trained.sha256,
        "plainfilm": __version__,
        "not_for_diagnosis": "true",
    }
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    shown = "" if trained.lungs == "off" else f" of {frames_text(trained.lungs, trained.segmenter)}"
    model.producer_name, model.producer_version = "plainfilm", __version__
    model.doc_string = (
        f"{FRAMES}: uint8 (N, {state['stored']}, {state['stored']}), as in a beton{shown}; {PROBABILITIES}: float32 "
        f"(N, {len(trained.classes)}). Research software: not for diagnosis."
    )


def settled_facts(trained: Trained) -> dict[str, str]:
    """What validation settled; of findings in their order, as JSON, and null where it knew too few films of one."""
    if trained.task == "classes":
        return {"temperature": repr(trained.decision.temperature)}
    rule = trained.findings
    threshold_K = [decision.point(POINT).threshold for decision in rule.by_finding]
    temperature_K = [
        value if enough else None for value, enough in zip(temperatures(trained), rule.enough_K.tolist(), strict=True)
    ]
    return {"task": "findings", "temperature": json.dumps(temperature_K), "threshold": json.dumps(threshold_K)}


def largest_difference(content: bytes, frames_NSS: np.ndarray, expected_NK: np.ndarray) -> float:
    """How far onnxruntime's probabilities are from the expected ones, in batches of every size of BATCHES."""
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = [session.run([PROBABILITIES], {FRAMES: frames_NSS[:size]})[0] for size in BATCHES]
    return max(float(np.abs(found_NK - expected_NK[: len(found_NK)]).max()) for found_NK in found)


def export_parts(done: Exported) -> Parts:
    """Shapes, parity, and where the files are."""
    return [
        Line(
            f"frames uint8 (N, {done.stored}, {done.stored}) → probabilities float32 (N, {len(done.classes)}): "
            f"{', '.join(done.classes)}; {done.size / 1e6:,.1f} MB"
        ),
        Line(
            f"Under onnxruntime its probabilities differ from the network's by {done.difference:.1g} at most "
            f"(limit {TOLERANCE:g})."
        ),
        path_line(done.model),
        path_line(done.card),
    ]
