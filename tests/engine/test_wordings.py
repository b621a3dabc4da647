"""What vision-language models are asked, and settings that belong to them: without one, so without their libraries."""

from pathlib import Path

import pytest

import cli
from engine.config import CompareConfig, CrossvalConfig, HurdlesConfig, TrainConfig, VlmConfig
from engine.networks.wordings import FILE, choice, read_prompts, wordings_of
from engine.train.run_folder import model_folder, run_id, save_settings, shared_settings
from loaders.errors import ConfigError
from loaders.settings import build

VLM = "vlm:/home/me/models/Some-VL"


def test_three_questions_ship_for_each_task_and_each_is_asked_in_both_orders() -> None:
    for task in ("classes", "findings"):
        prompts = read_prompts("shipped", task)  # type: ignore[arg-type]
        assert len(prompts) == 3
        wordings = wordings_of(prompts, ("yes", "no", "perhaps"), "effusion")
        assert [one.prompt for one in wordings] == [0, 0, 1, 1, 2, 2]
        assert all("yes, no or perhaps" in one.text for one in wordings[::2])
        assert all("perhaps, no or yes" in one.text for one in wordings[1::2])
        assert all(("effusion" in one.text) == (task == "findings") for one in wordings)
    assert choice(["one"]) == "one" and choice(["a", "b"]) == "a or b"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("classes = [", "not TOML"),
        ("findings = ['{finding}: {options}?']", "no list 'classes'"),
        ("classes = []", "no list 'classes'"),
        ("classes = [3]", "no list 'classes'"),
        ("classes = ['covid or normal?']", "has nothing to fill in, expected {options}"),
        ("classes = ['{options} of {finding}?']", "has finding, options to fill in, expected {options}"),
        ("classes = ['{options} {']", "cannot be filled in"),
        ("classes = ['{options}?', '{options}?']", "asks the same question of classes twice"),
    ],
)
def test_a_file_of_questions_that_cannot_be_asked_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_prompts(str(path), "classes")
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_ones_own_questions_are_read_and_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(FILE.read_text().replace("Classify", "Sort"))
    assert any("Sort this" in prompt for prompt in read_prompts(str(path), "classes"))
    with pytest.raises(ConfigError, match="No such file"):
        read_prompts(str(tmp_path / "none.toml"), "classes")


def test_settings_of_such_a_model_are_refused_where_they_are_of_no_use() -> None:
    given = {"data": Path("b"), "out": Path("r")}
    with pytest.raises(ConfigError, match="found --model cnn, expected vlm:FOLDER"):
        build(TrainConfig, given | {"tune": "lora"})
    with pytest.raises(ConfigError, match="both is for `compare`"):
        build(TrainConfig, given | {"model": VLM, "tune": "both"})
    with pytest.raises(ConfigError, match="or vlm:FOLDER"):
        build(TrainConfig, given | {"model": "vlm:"})
    with pytest.raises(ConfigError, match="expected vlm:FOLDER"):
        build(CompareConfig, given | {"models": ["cnn"], "prompts": "own.toml"})
    with pytest.raises(ConfigError, match="--tune both"):
        build(CrossvalConfig, given | {"model": VLM, "tune": "both"})
    with pytest.raises(ConfigError, match="pixels"):
        build(TrainConfig, given | {"model": VLM, "pixels": 3})
    tuned = build(HurdlesConfig, {"collections": [Path("b")], "out": Path("h"), "model": VLM, "tune": "lora"})
    assert tuned.training(Path("f"), 0).vlm == VlmConfig(tune="lora")


def test_a_comparison_names_models_by_their_folder_and_by_what_becomes_of_them() -> None:
    given = {"data": Path("b"), "out": Path("c"), "models": ["cnn", VLM]}
    found = build(CompareConfig, given | {"tune": "both"}).trainings()
    assert [*found] == ["cnn", "vlm:Some-VL", "vlm:Some-VL lora"]
    assert [str(one.out) for one in found.values()] == ["c/cnn", "c/vlm-Some-VL", "c/vlm-Some-VL-lora"]
    assert found["cnn"].vlm == VlmConfig() and found["vlm:Some-VL lora"].vlm.tune == "lora"
    with pytest.raises(ConfigError, match="folders of one name"):
        build(CompareConfig, given | {"models": [VLM, "vlm:elsewhere/Some-VL"]})


def test_the_folder_of_a_model_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    config = build(TrainConfig, {"data": tmp_path / "b", "out": tmp_path, "model": VLM, "prompts": "/home/me/own.toml"})
    save_settings(tmp_path, config)
    assert "/home/me" not in (tmp_path / "config.json").read_text()
    assert shared_settings(config)["model"] == "vlm:Some-VL" and shared_settings(config)["prompts"] == "own.toml"
    assert model_folder(tmp_path) == Path("/home/me/models/Some-VL")
    (tmp_path / "local.json").unlink()
    assert model_folder(tmp_path) == Path("Some-VL")
    assert model_folder(tmp_path / "none") is None


def test_a_run_of_other_weights_or_questions_is_another_run() -> None:
    config = build(TrainConfig, {"data": Path("b"), "out": Path("r"), "model": VLM})
    ids = {run_id(config, "conversion", text) for text in ("", "one", "other")}
    assert len(ids) == 3


def test_help_names_it_and_needs_no_library(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert "vlm:FOLDER" in capsys.readouterr().out
