"""Vision-language models: their scores, their runs, what is refused, and how one that does not look is found out."""

# N films, W wordings, K classes, P questions

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cli
from benchmarks.tiny_models import tiny_gemma3, tiny_qwen3_vl, tiny_vlm
from engine.compare import compare
from engine.config import CompareConfig, EvaluateConfig, PredictConfig, TrainConfig
from engine.device import choose_policy
from engine.evaluate.evaluate import Evaluation, evaluate
from engine.evaluate.output import evaluation_parts
from engine.evaluate.trained import load_trained
from engine.networks.model_folder import fetch
from engine.networks.vlm import EXAMPLE, VlmNetwork, load_backbone, open_vlm
from engine.networks.wordings import read_prompts
from engine.predict.predict import predict_files
from engine.train.checkpoint import load_checkpoint, save_checkpoint
from engine.train.run_folder import load_config
from engine.train.state import Watch
from engine.train.train import train
from loaders.beton.reader import Beton
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig, Task
from loaders.convert.convert import convert
from loaders.errors import CheckpointError, ConfigError, Interrupted, StorageError
from loaders.output import Line
from loaders.phantom.phantom import write_phantoms
from loaders.settings import build
from tests.conftest import made_once
from tests.example_run import small_training
from tests.findings_example import write_findings

pytestmark = pytest.mark.extras
NAMES = ("covid", "normal chest", "covid pneumonia")  # one begins like another
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return made_once(tmp_path_factory, "vlm", lambda folder: tiny_vlm(folder / "tiny-vl")) / "tiny-vl"


def network(folder: Path, names: tuple[str, ...] = NAMES, task: Task = "classes", tune: str = "none") -> VlmNetwork:
    torch.manual_seed(1)
    return open_vlm(folder, names, task, read_prompts("shipped", task), tune=tune, pixels=0).eval()  # type: ignore[arg-type]


def films(count: int, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


def settings(betons: Path, model: Path, out: Path, **changes: object) -> TrainConfig:
    return small_training(betons, out, **({"model": f"vlm:{model}"} | changes))


def copied(model: Path, folder: Path) -> Path:
    return shutil.copytree(model, folder / model.name)


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    """The folder, once its weights have been changed."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
    return folder


# ---- scores


def by_hand(asked: VlmNetwork, frame_HW: torch.Tensor, text: str, answer: str) -> float:
    """The sum of the log-probabilities of an answer's tokens: question and answer as one text, nothing shared."""
    processor, model = asked.backbone.processor, asked.backbone.model
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    grey_3HW = ((frame_HW + 1) * 127.5).round().to(torch.uint8).expand(3, -1, -1)
    inputs = processor(text=[prompt + answer], images=[grey_3HW], return_tensors="pt")
    tokens = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        log_TV = model(**inputs, use_cache=False).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    assert ids[-len(tokens) :].tolist() == tokens
    places = range(len(ids) - len(tokens), len(ids))
    return float(sum(log_TV[place - 1, ids[place]] for place in places))


def test_a_score_is_the_sum_of_the_log_probabilities_of_the_answers_tokens(model: Path) -> None:
    asked, frames_N1HW = network(model), films(2)
    with torch.inference_mode():
        found_NWK = asked.scores(frames_N1HW)
    assert found_NWK.shape == (2, 6, 3)
    for number, frame_HW in enumerate(frames_N1HW[:, 0]):
        for place in (0, 3):
            wanted_K = [by_hand(asked, frame_HW, asked.wordings[place].text, answer) for answer in NAMES]
            np.testing.assert_allclose(found_NWK[number, place], wanted_K, rtol=1e-4)
    assert found_NWK.std(0).min() > 1e-4  # films differ, so that what was compared depends on them


def test_a_finding_scores_yes_less_no(model: Path) -> None:
    asked, frames_N1HW = network(model, ("effusion", "nodule"), "findings"), films(1)
    with torch.inference_mode():
        found_WK = asked.scores(frames_N1HW)[0]
    for place, question in enumerate(asked.questions):
        yes, no = (by_hand(asked, frames_N1HW[0, 0], question[1].text, answer) for answer in ("yes", "no"))
        assert found_WK[1, place] == pytest.approx(yes - no, abs=1e-3)
    assert "nodule" in asked.questions[1][0].text and "effusion" not in asked.questions[1][0].text


def test_each_question_is_asked_in_both_orders(model: Path) -> None:
    asked = network(model)
    assert [one.prompt for one in asked.wordings] == [0, 0, 1, 1, 2, 2]
    first, second = asked.wordings[0].text, asked.wordings[1].text
    assert "covid, normal chest or covid pneumonia" in first and "covid pneumonia, normal chest or covid" in second


def test_batches_of_one_and_of_four_give_the_same_scores(model: Path) -> None:
    asked, frames_N1HW = network(model), films(4)
    with torch.inference_mode():
        whole_NK = asked(frames_N1HW)
        single_NK = torch.cat([asked(frame_1HW[None]) for frame_1HW in frames_N1HW])
    torch.testing.assert_close(whole_NK, single_NK, rtol=1e-5, atol=1e-4)


def test_an_adapter_changes_nothing_before_it_is_trained_and_alone_is_trained_and_saved(model: Path) -> None:
    plain, tuned, frames_N1HW = network(model), network(model, tune="lora"), films(2)
    with torch.inference_mode():
        torch.testing.assert_close(plain(frames_N1HW), tuned(frames_N1HW), rtol=0, atol=0)
    assert [name for name, weight in plain.named_parameters() if weight.requires_grad] == []
    own = {id(weight) for weight in tuned.parameters()}
    assert {id(weight) for weight in tuned.backbone.model.parameters() if weight.requires_grad} == own - {
        id(tuned.bias_K)
    }
    saved = sum(value.numel() for value in tuned.state_dict().values())
    assert len(own) > 10 and saved < 0.3 * tuned.backbone.num_parameters
    tuned.train()
    tuned(frames_N1HW).sum().backward()
    assert all(weight.grad is not None for weight in tuned.parameters())


@pytest.mark.parametrize("make", [tiny_qwen3_vl, tiny_gemma3])
def test_models_of_other_families_are_asked_by_the_same_path(make: Callable[[Path], Path], tmp_path: Path) -> None:
    asked, frames_N1HW = network(make(tmp_path / "other")), films(2)
    with torch.inference_mode():
        found_NWK = asked.scores(frames_N1HW)
    for place, answer in enumerate(NAMES):
        wanted = by_hand(asked, frames_N1HW[0, 0], asked.wordings[2].text, answer)
        assert found_NWK[0, 2, place] == pytest.approx(wanted, rel=1e-4)
    assert found_NWK.std(0).min() > 1e-5  # films differ
    tuned = network(tmp_path / "other", tune="lora").train()
    tuned(frames_N1HW).sum().backward()
    assert sum(weight.grad is not None for weight in tuned.parameters()) > 30


def test_pictures_of_one_size_cannot_be_bounded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in one size"):
        load_backbone(tiny_gemma3(tmp_path / "gemma"), pixels=10_000)


def test_pixels_bound_what_it_is_shown(model: Path) -> None:
    frames_N1HW = films(1, side=112)
    counts = []
    for pixels in (0, 56 * 56):
        asked = VlmNetwork(load_backbone(model, pixels=pixels), NAMES, "classes", read_prompts("shipped", "classes"))
        counts.append(asked.asked(asked.wordings[0].text, (112, 112))["input_ids"].shape[1])
        asked(frames_N1HW)  # pictures and tokens agree
    assert counts[0] - counts[1] == 16 - 4


# ---- runs


def test_a_model_is_asked_as_it_is_and_its_run_is_like_any_other(model: Path, betons: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    summary = train(settings(betons, model, tmp_path / "run"), watch=Watch(note=notes.append))
    assert (summary.model, summary.tune, summary.stopped) == ("vlm:tiny-vl", "none", "zero-shot")
    assert (summary.epochs, summary.best_epoch, summary.steps) == (0, 0, 0)
    assert "tiny-vl" in notes[0] and "6 questions" in notes[0] and "MB" in notes[0]
    assert str(tmp_path) not in (tmp_path / "run" / "config.json").read_text()
    tensors, state = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert [name for name in tensors if name.startswith("network.")] == ["network.bias_K"]
    assert not tensors["network.bias_K"].any() and state["vlm"]["identity"] == load_backbone(model).identity
    assert not (tmp_path / "run" / "curves.png").exists()
    found = evaluated(tmp_path / "run", betons)
    again = evaluated(tmp_path / "run", betons, out=tmp_path / "again")
    assert found.metrics == again.metrics
    (looking,) = found.metrics.looking
    assert looking.num_wordings == 6 and looking.spread is not None and looking.spread > 0
    assert [one.by for one in looking.replaced] == ["another film", "grey picture", "lungs hidden"]
    assert "Does it look?" in text_of(found)
    assert not {"does-not-look"} & {one.code for one in found.metrics.cautions}
    cli.main(["report", str(tmp_path / "run"), "--no-probes"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Does it look?" in page and str(tmp_path) not in page
    assert "asked as it is: nothing was trained" in page and "cli.py explain" not in page
    with pytest.raises(ConfigError, match="--weights default: found with vlm:tiny-vl"):
        train(settings(betons, model, tmp_path / "other", weights="default"))


def evaluated(run: Path, betons: Path, **changes: object) -> Evaluation:
    (found,) = evaluate(
        build(EvaluateConfig, {"run": run, "betons": [betons / "heldout.beton"], "resamples": 200} | changes)
    )
    return found


def text_of(found: Evaluation) -> str:
    parts = evaluation_parts(found)
    return "\n".join(part.text if isinstance(part, Line) else f"{part.title} {part.rows}" for part in parts)


def test_an_interrupted_adapter_goes_on_to_the_bit_and_is_read_back_exactly(
    model: Path, betons: Path, tmp_path: Path
) -> None:
    config = settings(betons, model, tmp_path / "whole", tune="lora", epochs=2, batch_size=16)
    train(config)
    stopped = replace(config, out=tmp_path / "cut")
    steps = iter([False] * 3)
    with pytest.raises(Interrupted):
        train(stopped, watch=Watch(stopping=lambda: next(steps, True)))
    train(load_config(tmp_path / "cut"), resume=True)
    whole, cut = (load_checkpoint(tmp_path / name / "last.safetensors")[0] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    assert any("adapter" in name for name in whole) and not any("layers/0/mlp/up_proj/weight" in name for name in whole)
    trained = load_trained(tmp_path / "whole")
    tensors, _ = load_checkpoint(tmp_path / "whole" / "best.safetensors")
    for name, weight in trained.network.state_dict().items():
        assert torch.equal(weight, tensors[f"network.{name}"])
    assert any(weight.any() for name, weight in trained.network.named_parameters() if "lora_B" in name)
    logits_NK = tensors["validation.logits"].numpy()
    assert np.isfinite(logits_NK).all() and logits_NK.std() > 0


def test_a_comparison_has_it_as_it_is_and_tuned_beside_the_recipe(model: Path, betons: Path, tmp_path: Path) -> None:
    config = build(
        CompareConfig,
        {"data": betons, "out": tmp_path / "c", "models": ["cnn", f"vlm:{model}"], "tune": "both", "epochs": 1,
         "device": "cpu", "resamples": 100},
    )  # fmt: skip
    found = compare(config)
    assert [row.model for row in found.networks] == ["cnn", "vlm:tiny-vl", "vlm:tiny-vl lora"]
    assert [row.failed for row in found.networks] == [""] * 3
    assert all(row.heldout_f1 is not None for row in found.networks)
    assert found.settings["models"] == ["cnn", "vlm:tiny-vl"]
    assert compare(config) == found  # what is done is not done again


def test_findings_are_asked_about_one_by_one(model: Path, tmp_path: Path) -> None:
    betons = write_findings(tmp_path / "b", crop=32)
    train(settings(betons, model, tmp_path / "run"))
    found = evaluated(tmp_path / "run", betons)
    assert len(found.metrics.looking) == 1 and "Does it look?" in text_of(found)


def test_a_prediction_abstains_where_questions_are_answered_differently(
    model: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    train(settings(betons, model, tmp_path / "run"))
    files = sorted((phantoms.parent / "images").rglob("*.png"))[:12]
    config = PredictConfig(
        run=tmp_path / "run", files=tuple(files), out=tmp_path / "p.csv", min_confidence=0, workers=1
    )
    found = predict_files(replace(config, audit="off"))
    trained, policy = load_trained(tmp_path / "run"), choose_policy("cpu", "off", "off", 0)
    with Beton(betons / "train.beton") as beton:
        scores_NWK = trained.scores(beton.bytes_B, beton.offset_N[:5], policy)
    by_prompt_NPK = trained.by_prompt(scores_NWK)
    assert by_prompt_NPK.shape == (5, 3, 2)
    wanted_NK = trained.rule.probabilities(scores_NWK[:, 2:4].mean(1))
    np.testing.assert_array_equal(by_prompt_NPK[:, 1], wanted_NK)  # both orders of the second question
    assert found.abstained["prompts-disagree"] + sum(found.predicted.values()) == len(files)


def test_commands_that_cannot_take_it_say_so(
    model: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(settings(betons, model, tmp_path / "run"))
    assert cli.main(["explain", str(tmp_path / "run"), str(betons / "heldout.beton")]) == 2
    assert "`evaluate` shows whether it looks" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "run")]) == 2
    assert "a vision-language model" in capsys.readouterr().err


# ---- does it look?


def without_pictures(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What it answers comes from the words alone: every patch of every film looks the same to it."""
    merger = [name for name in weights if ".merger.mlp.2." in name]
    assert len(merger) == 2
    return weights | {name: torch.zeros_like(weights[name]) for name in merger}


def without_words(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All tokens are as likely as one another, so that scores are constant."""
    (name,) = [name for name in weights if "embed_tokens" in name]
    return weights | {name: torch.zeros_like(weights[name])}


@pytest.mark.parametrize("plant", [without_pictures, without_words])
def test_a_model_that_does_not_look_is_named(
    plant: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], model: Path, betons: Path, tmp_path: Path
) -> None:
    blind = changed(copied(model, tmp_path), plant)
    train(settings(betons, blind, tmp_path / "run"))
    found = evaluated(tmp_path / "run", betons)
    (looking,) = found.metrics.looking
    assert all(one.changed.value == 0 for one in looking.replaced)
    assert looking.film_effect is not None and looking.film_effect < 1e-6 and looking.word_effect is not None
    assert (looking.word_effect > 0.001) == (plant is without_pictures)  # which has a prior, the other nothing at all
    assert "does-not-look" in [one.code for one in found.metrics.cautions]
    cli.main(["report", str(tmp_path / "run"), "--no-probes"])
    assert "This score does not come from the film" in (tmp_path / "run" / "report.html").read_text()


# ---- what is refused


def truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1000])


def without_a_key(folder: Path) -> None:
    changed(folder, lambda weights: dict(sorted(weights.items())[1:]))


def with_a_key_too_many(folder: Path) -> None:
    changed(folder, lambda weights: weights | {"visual.extra": torch.zeros(3)})


def of_another_shape(folder: Path) -> None:
    name = next(name for name in load_file(folder / WEIGHTS) if "q_proj.weight" in name)
    changed(folder, lambda weights: weights | {name: torch.zeros(3, 3)})


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def of_kind(kind: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | {"model_type": kind}))

    return change


def in_shards(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


REFUSED: tuple[tuple[Callable[[Path], object], type[Exception], int, str], ...] = (
    (shutil.rmtree, StorageError, 4, "no such folder"),
    (without(WEIGHTS), StorageError, 4, f"{WEIGHTS} is not there"),
    (without("config.json"), StorageError, 4, "config.json is not there"),
    (without("tokenizer.json"), StorageError, 4, "tokenizer.json or tokenizer.model or vocab.json is not there"),
    (in_shards, StorageError, 4, "model-00001-of-00002.safetensors is not there"),
    (truncated, CheckpointError, 5, "cannot be loaded"),
    (without_a_key, CheckpointError, 5, "its weights lack"),
    (with_a_key_too_many, CheckpointError, 5, "its weights hold besides"),
    (of_another_shape, CheckpointError, 5, "its weights hold in another shape"),
    (pickled, CheckpointError, 5, "loading it could run code"),
    (of_kind("llama"), ConfigError, 2, "a model of type 'llama'"),
    (of_kind("their_own"), ConfigError, 2, "without code of the model's own"),
)


@pytest.mark.parametrize(("break_it", "error", "code", "said"), REFUSED)
def test_a_folder_that_is_no_whole_model_is_refused(
    break_it: Callable[[Path], object], error: type[Exception], code: int, said: str, model: Path, tmp_path: Path
) -> None:
    folder = copied(model, tmp_path)
    break_it(folder)
    with pytest.raises(error) as caught:
        load_backbone(folder)
    message = str(caught.value)
    assert said in message and str(folder) in message and "\n" not in message
    assert isinstance(caught.value, next(kind for kind, number in cli.EXIT_CODES.items() if number == code))
    if error is StorageError:
        assert fetch(folder, EXAMPLE) in message


def test_too_little_memory_and_a_missing_extra_are_said(
    model: Path, betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(betons), "--model", f"vlm:{model}", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr("engine.networks.model_folder.usable_memory", lambda: 100_000)
        assert cli.main(command) == 4
    assert "tiny-vl needs 0.0 GB, this process may use 0.0" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "transformers", None)
        assert cli.main(command) == 2
    assert "pip install 'plainfilm[vlm]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_weights_than_the_runs_are_refused_and_so_is_a_renamed_adapter(
    model: Path, betons: Path, tmp_path: Path
) -> None:
    own = copied(model, tmp_path)
    train(settings(betons, own, tmp_path / "run", tune="lora"))
    best = tmp_path / "run" / "best.safetensors"
    tensors, state = load_checkpoint(best)
    name = next(name for name in tensors if "lora_A" in name)
    save_checkpoint(best, {key.replace(name, f"{name}x"): value for key, value in tensors.items()}, state)
    with pytest.raises(CheckpointError, match="2 tensors differ"):
        load_trained(tmp_path / "run")
    save_checkpoint(best, tensors, state)
    load_trained(tmp_path / "run")
    content = bytearray((own / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (own / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="which the run was made with"):
        load_trained(tmp_path / "run")
    shutil.rmtree(own)
    with pytest.raises(StorageError, match=r"hf download .* or write where it lies into .*local.json"):
        load_trained(tmp_path / "run")


def test_nothing_is_downloaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(StorageError, match="no such folder"):
        load_backbone(Path("Qwen/Qwen2.5-VL-3B-Instruct"))  # the name of a model that there is elsewhere
    assert load_backbone(model).num_parameters > 100_000


# ---- learning


def test_an_adapter_learns_what_phantoms_show(model: Path, tmp_path: Path) -> None:
    write_phantoms(PhantomConfig(out=tmp_path / "p", patients=120, size=128, strength=2.0))
    catalog, key = CatalogConfig(manifest=tmp_path / "p" / "phantoms.csv"), tmp_path / "key"
    convert(ConvertConfig(catalog=catalog, out=tmp_path / "b", size=32, holdout=0.25, site_key=key, workers=1))
    train(settings(tmp_path / "b", model, tmp_path / "run", tune="lora", epochs=4, learning_rate=0.003))
    found = evaluated(tmp_path / "run", tmp_path / "b")
    auc = found.metrics.estimates["auc"]
    assert auc.low is not None and auc.low > 0.5
    assert "does-not-look" not in [one.code for one in found.metrics.cautions]
