"""A vision-language model as a classifier: the scores of its answers, and an adapter that can be tuned."""

# N films, H W rows and columns of the crop, S wordings, K classes or findings, A answers, L tokens of a question,
# T tokens of an answer, V tokens of the vocabulary

import contextlib
import importlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn

from engine.config import Tune
from engine.networks.extras import import_extra
from engine.networks.model_folder import (
    CONFIG,
    check_keys,
    check_memory,
    fetch,
    find_weights,
    identity_of,
    loading,
    read_json,
)
from engine.networks.wordings import YES_NO, Wording, wordings_of
from loaders.config import Task
from loaders.errors import CheckpointError, ConfigError
from loaders.output import counted, seconds_text

EXTRA, EXAMPLE = "vlm", "Qwen/Qwen2.5-VL-3B-Instruct"
# what the model itself, its pictures and its text need; of each line one file
NEEDED = (
    (CONFIG,),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "tokenizer.model", "vocab.json"),
)
RANK = 8  # of the adapter's matrices
LEVELS = 127.5  # grey levels from -1 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """A model that was loaded from a folder.  model, processor: as transformers has them.  model in evaluation mode.

    name: of the folder.  identity: BLAKE3 of its configuration and weights, 32 hexadecimal digits.
    """

    name: str
    identity: str
    model: Any
    processor: Any

    @property
    def num_parameters(self) -> int:
        """How many weights it has, each counted once."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())


def load_backbone(folder: Path, *, pixels: int = 0, identity: str = "") -> Backbone:
    """A model of transformers' image-text interface, from its folder alone.

    pixels: most pixels of a picture that it is shown; 0: as its own settings have it.
    identity: that the weights must have; "": any.
    Errors: StorageError for a file that is not there; ConfigError for a model of another kind, or without the extra;
    CheckpointError for weights that are damaged, pickled, others than expected, or do not fit the model;
    MemoryError where there is too little.
    """
    files = find_weights(folder, NEEDED, EXAMPLE)
    transformers = import_extra("transformers", EXTRA)
    check_kind(folder, transformers)
    check_memory(folder, files)
    found = identity_of(folder, files)
    if identity not in ("", found):
        raise CheckpointError(
            f"{folder}: weights {found}, expected {identity}, which the run was made with; bring that folder back"
        )
    given = {"local_files_only": True, "trust_remote_code": False}
    with loading(folder, EXAMPLE, transformers):
        model, loaded = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, dtype="auto", **given
        )
        processor = transformers.AutoProcessor.from_pretrained(folder, **given)
    check_keys(folder, loaded, fetch(folder, EXAMPLE))
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise ConfigError(f"{folder}: no image processor with a chat template, expected an instruction-tuned model")
    bound_pixels(folder, processor.image_processor, pixels)
    return Backbone(name=folder.resolve().name, identity=found, model=model.eval(), processor=processor)


def check_kind(folder: Path, transformers: ModuleType) -> None:
    """Errors: ConfigError for a model that takes no pictures, or would run code of its own."""
    kind = read_json(folder / CONFIG).get("model_type")
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    known = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if kind not in known:
        raise ConfigError(
            f"{folder}: a model of type {kind!r}, expected one that takes pictures and text, such as qwen2_5_vl, and "
            f"that transformers {transformers.__version__} knows without code of the model's own; choose another"
        )


def bound_pixels(folder: Path, image_processor: Any, pixels: int) -> None:
    """Show the model no more than so many pixels of a picture.  Errors: ConfigError where its size is fixed."""
    if not pixels:
        return
    size = dict(getattr(image_processor, "size", None) or {})
    if not {"shortest_edge", "longest_edge"} <= size.keys():
        raise ConfigError(
            f"--pixels {pixels}: {folder.name} shows every picture in one size, expected auto; leave it out"
        )
    # of these processors the "edges" are areas: fewest and most pixels
    size["longest_edge"], size["shortest_edge"] = pixels, min(size["shortest_edge"], pixels)
    image_processor.size = size


class VlmNetwork(nn.Module):
    """A vision-language model that is asked about each film, and scored by the log-probabilities of given answers.

    forward: frames_N1HW float in [-1, 1] → logits_NK.  Of classes a logit is the sum of the log-probabilities of the
    tokens of the class's name, as the answer; of findings that of "yes" less that of "no".  In evaluation mode it is
    the mean over all wordings; in training mode that of one of them, drawn from torch's generator.  A trained bias is
    added.  Answers are given, not generated (teacher forcing), so that every answer has a score.

    Parameters and state are those of the adapter and the bias alone: the model's own weights stay in their folder, and
    are never trained.  tune="none" has no adapter, and its bias stays 0.
    """

    def __init__(
        self, backbone: Backbone, names: Sequence[str], task: Task, prompts: Sequence[str], tune: Tune = "none",
        pixels: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self._hidden = (backbone,)  # no submodule: it is neither saved nor trained
        self.names, self.task, self.tune = tuple(names), task, tune
        self.prompts, self.pixels = tuple(prompts), pixels
        self.answers = self.names if task == "classes" else YES_NO
        self.questions = (
            [wordings_of(prompts, names)] if task == "classes" else [wordings_of(prompts, YES_NO, one) for one in names]
        )
        self.answer_tokens = [tokens_of(backbone, answer) for answer in self.answers]
        backbone.model.requires_grad_(False)
        self.bias_K = nn.Parameter(torch.zeros(len(self.names)), requires_grad=tune != "none")
        self.adapter = nn.ParameterDict(add_adapter(backbone) if tune == "lora" else {})
        self._asked: dict[tuple[str, int, int], dict[str, Tensor]] = {}

    @property
    def backbone(self) -> Backbone:
        """The model and its processor."""
        return self._hidden[0]

    @property
    def wordings(self) -> tuple[Wording, ...]:
        """The wordings of a question, in the order of the scores."""
        return self.questions[0]

    def forward(self, frames_N1HW: Tensor) -> Tensor:
        if self.training:
            place = int(torch.randint(len(self.wordings), (1,)))
            return self.scores(frames_N1HW, [place])[:, 0] + self.bias_K
        return self.by_wording(frames_N1HW).mean(1)

    def by_wording(self, frames_N1HW: Tensor) -> Tensor:
        """The logits of each wording, float32 (N, S, K), whose mean forward gives in evaluation mode."""
        return self.scores(frames_N1HW) + self.bias_K

    def scores(self, frames_N1HW: Tensor, places: Sequence[int] | None = None) -> Tensor:
        """The scores of each wording, float32 (N, S, K), without the bias.  places: of the wordings; None: all."""
        pictures = self.pictures(frames_N1HW)
        size = (frames_N1HW.shape[2], frames_N1HW.shape[3])
        found = []
        for question in self.questions:
            chosen = question if places is None else [question[place] for place in places]
            found.append(
                torch.stack([self.answer_scores(one.text, pictures, len(frames_N1HW), size) for one in chosen], 1)
            )
        if self.task == "classes":
            return found[0]
        return torch.stack([yes_no_NSA[..., 0] - yes_no_NSA[..., 1] for yes_no_NSA in found], 2)

    def pictures(self, frames_N1HW: Tensor) -> dict[str, Tensor]:
        """Films as the model's own processor makes them: grey levels in three equal channels."""
        grey_N3HW = ((frames_N1HW.float() + 1) * LEVELS).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
        made = self.backbone.processor.image_processor(list(grey_N3HW.cpu()), return_tensors="pt")
        return {name: value.to(frames_N1HW.device) for name, value in made.items() if isinstance(value, Tensor)}

    def asked(self, text: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """A question about a picture of that size as tokens on the host, (1, L) each: input_ids, and their kinds."""
        key = (text, *size)
        if key not in self._asked:
            processor = self.backbone.processor
            content = [{"type": "image"}, {"type": "text", "text": text}]
            prompt = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            blank = torch.zeros(3, *size, dtype=torch.uint8)
            made = processor(text=[prompt], images=[blank], return_tensors="pt")
            shape = made["input_ids"].shape
            self._asked[key] = {
                # no mask: nothing is padded, since all films of a run are of one size
                name: value
                for name, value in made.items()
                if value.shape == shape and name != "attention_mask"
            }
        return self._asked[key]

    def answer_scores(self, text: str, pictures: dict[str, Tensor], count: int, size: tuple[int, int]) -> Tensor:
        """The log-probability of each answer to a question, float32 (N, A): sums over its tokens.

        Answers that begin alike share a pass: answers of one token need one for all.
        """
        device = self.bias_K.device
        asked = {name: value.to(device).expand(count, -1) for name, value in self.asked(text, size).items()}
        known: dict[tuple[int, ...], Tensor] = {}  # what was given of an answer → the log-probabilities after it
        score_of: dict[int, Tensor] = {}
        for place in sorted(range(len(self.answers)), key=lambda place: -len(self.answer_tokens[place])):
            tokens = self.answer_tokens[place]
            given = tuple(tokens[:-1])
            whole = next((other for other in known if other[: len(given)] == given), None)
            if whole is None:
                whole, known[given] = given, self.log_probabilities(asked, pictures, given)
            token_NT1 = torch.tensor(tokens, device=device).expand(count, -1)[:, :, None]
            score_of[place] = known[whole][:, : len(tokens)].gather(2, token_NT1)[..., 0].sum(1)
        return torch.stack([score_of[place] for place in range(len(self.answers))], 1)

    def log_probabilities(self, asked: dict[str, Tensor], pictures: dict[str, Tensor], given: Sequence[int]) -> Tensor:
        """Log-probabilities of the token after the question, and after each that is given, float32 (N, T, V)."""
        inputs = dict(asked)
        for name, value_NL in asked.items():
            rest = torch.tensor(given, dtype=value_NL.dtype, device=value_NL.device)
            if name != "input_ids":  # kinds of tokens: an answer is text, which is 0
                rest = torch.zeros_like(rest)
            inputs[name] = torch.cat([value_NL, rest.expand(len(value_NL), -1)], 1)
        kept = len(given) + 1
        found = self.backbone.model(**inputs, **pictures, logits_to_keep=kept, use_cache=False)
        return found.logits[:, -kept:].float().log_softmax(-1)

    def cost(self, crop: int, device: torch.device, films: int) -> str:
        """What it takes, for a person, measured on a grey picture: memory, and seconds a film in all wordings."""
        frames_11HW = torch.zeros(1, 1, crop, crop, device=device)
        with torch.inference_mode():
            for _ in range(2):  # the first also makes kernels
                started = time.perf_counter()
                self.scores(frames_11HW).cpu()
                seconds = time.perf_counter() - started
        passes = sum(map(len, self.questions))
        memory = f"{self.backbone.num_parameters / 1e6:,.1f} M parameters, {self.backbone.size / 1e6:,.1f} MB"
        return (
            f"{self.backbone.name}: {memory}; {seconds_text(seconds, 3)} a film, asked {counted(passes, 'question')}: "
            f"at most {seconds_text(seconds * films)} for {films:,} films"
        )

    # ---- what nn.Module would do to submodules, done to the model

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.backbone.model._apply(fn)
        return super()._apply(fn, recurse)

    def to(self, *arguments: Any, memory_format: torch.memory_format | None = None, **options: Any) -> Self:
        """As of nn.Module, without a layout: the model's first convolution may have three dimensions."""
        return super().to(*arguments, **options)


def open_vlm(
    folder: Path, names: Sequence[str], task: Task, prompts: Sequence[str], *, tune: Tune, pixels: int,
    identity: str = "",
) -> VlmNetwork:  # fmt: skip
    """The network of a model in a folder; its adapter is drawn from torch's generator.  identity: see `load_backbone`.

    Errors: as of `load_backbone`; ConfigError for a name without tokens.
    """
    return VlmNetwork(load_backbone(folder, pixels=pixels, identity=identity), names, task, prompts, tune, pixels)


def tokens_of(backbone: Backbone, answer: str) -> list[int]:
    """The tokens of an answer.  Errors: ConfigError for a name that has none."""
    found = backbone.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not found:
        raise ConfigError(f"{backbone.name}: no tokens for {answer!r}, expected a name that it can answer; rename it")
    return list(found)


def add_adapter(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Give every linear layer of the model a low-rank adapter that changes nothing yet; its parameters by name.

    Drawn from torch's generator.  Source: Hu et al. 2022, LoRA.
    Errors: ConfigError without the extra.
    """
    peft = import_extra("peft", EXTRA)
    settings = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear")
    with quiet():
        peft.inject_adapter_in_model(settings, backbone.model)
    return {name.replace(".", "/"): weight for name, weight in backbone.model.named_parameters() if "lora_" in name}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of libraries about their own next releases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
