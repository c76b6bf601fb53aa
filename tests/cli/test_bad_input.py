"""Bad input: one line that says what is wrong, where, and what would be right; exit code 2; nothing written."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import ones

from tests.cli.commands import QUICK, RETAIN, error_line, save_model_without_pad_token, unlora, write_lines
from tests.cli.conftest import Inputs
from tests.tiny import save_tiny
from unlora.config import read_yaml
from unlora.run.presets import presets


@pytest.fixture
def model_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the model fails the test: the error must come before."""

    def load_model(*_arguments: object, **_options: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("unlora.run.loading.load_model", load_model)


def refusal(inputs: Inputs, output: Path, *options: object, command: str = "unlearn") -> str:
    """The line that refuses the usual command with more options; `output` must not come into being."""
    line = error_line(unlora(command, *inputs.options, "--output", output, *options))
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}.*"))
    return line


BAD_FILES = {
    "missing": (None, ": no such file."),
    "empty": ("", "line 1: the file is empty; a line holds question and answer, or prompt and completion,"),
    "invalid_json": ('{"text": "fine"}\n{"text":\n', "line 2: not valid JSON"),
    "unknown_shape": (
        '{"text": "fine"}\n{"title": "x"}\n',
        "line 2: unknown shape (keys found: 'title'); a line holds",
    ),
    "empty_answer": ('{"question": "Who?", "answer": " "}\n', "line 1: 'answer' is empty; write some text"),
    "unknown_key": ('{"question": "Who?", "answer": "I.", "lable": 1}\n', "line 1: unknown key 'lable'"),
}


@pytest.mark.usefixtures("model_untouched")
@pytest.mark.parametrize("command", ["unlearn", "importance", "evaluate"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_refused_with_its_line(inputs: Inputs, tmp_path: Path, command: str, case: str):
    content, expected = BAD_FILES[case]
    file = tmp_path / "bad.jsonl"
    if content is not None:
        file.write_text(content)
    line = refusal(inputs, tmp_path / "out", "--forget", file, command=command)
    assert line.startswith(f"error: {file}")
    assert expected in line


@pytest.mark.usefixtures("model_untouched")
@pytest.mark.parametrize("option", ["--data", "--exclude"])
def test_finetune_refuses_a_missing_file(inputs: Inputs, tmp_path: Path, option: str):
    files = {"--data": inputs.forget} | {option: tmp_path / "none.jsonl"}
    options = [part for pair in files.items() for part in pair]
    line = error_line(unlora("finetune", "--model", inputs.model, *options, "--output", tmp_path / "out"))
    assert line == f"error: {tmp_path / 'none.jsonl'}: no such file."
    assert not (tmp_path / "out").exists()


WRONG_SETTINGS = {
    "training.learning_rat=1e-4": "unknown key 'training.learning_rat'. Did you mean 'training.learning_rate'?",
    "trainig.learning_rate=1e-4": "unknown key 'trainig'. Did you mean 'training'?",
    "learning_rate=1e-4": "unknown key 'learning_rate'. Did you mean 'training.learning_rate'?",
    "objective.zzz=1": "Known keys: objective.forget, objective.retain, objective.retain_weight, ",
    "training.learning_rate=fast": "training.learning_rate: must be a valid number",
    "training.learning_rate=inf": "training.learning_rate: must be a finite number (found 'inf')",
    "training.epochs=2.5": "training.epochs: must be a valid integer",
    "adapter.alpha=1e308": "adapter.alpha: must be less than or equal to 1000000",
    "training.epochs=0": "training.epochs: must be greater than or equal to 1 (found 0)",
    "training=5": "training: must be a section of keys (found 5)",
    "adapter.target_modules=q_proj": "adapter.target_modules: must be a list, such as [q_proj]",
    "start.kind=marginals": "start: unknown kind 'marginals'. Did you mean 'marginal'?",
    "start.statistic=variance": "start 'contrast_inputs': unknown key 'start.statistic'. Known keys: ",
    "start.damping=soft": "start 'contrast_inputs': start.damping: must be a valid number",
    "importance.space=marginal": "settings: importance.space: must be 'marginals', 'lora_factors' or",
    "importance.statistic=varience": "(found 'varience'). Did you mean 'variance'?",
    "data.on_long=reject": "data.on_long: must be 'truncate' or 'refuse' (found 'reject')",
    "objective.forget=ilh": "unknown forget term 'ilh'. Did you mean 'ihl'?",
    "objective.retain=nl": "unknown retain term 'nl'. Did you mean 'nll'?",
    "objective.forget_parameters.beta=0.5": "'ihl' has no parameter 'beta'. It has none.",
    "objective.forget_parameters=5": "objective.forget_parameters: must be a valid dictionary (found 5)",
    "objective.forget=no_such_module:Loss": "forget term 'no_such_module:Loss': no_such_module cannot be imported (",
    "objective.forget=json:JSONDecoder": "'json:JSONDecoder' must be a dataclass that subclasses ForgetTerm.",
    "objective.refusals=none.jsonl": "objective.refusals: 'ihl' reads no refusals; leave the file out.",
    "adapter.lora_dropout=0.1": "adapter.lora_dropout: must be 0, with dropout the two halves of the anchored adapter",
    "start.file=none.safetensors": "none.safetensors: no such file.",
    "evaluation.retain_only=./none": "model './none': no such folder.",
    "evaluation.retain_only=none.jsonl": "none.jsonl: cannot be read (No such file or directory).",
    "evaluation.retain=none.jsonl": "none.jsonl: no such file.",
    "no_equals": "--set no_equals: must look like section.key=value.",
}


@pytest.mark.usefixtures("model_untouched")
@pytest.mark.parametrize("setting", WRONG_SETTINGS)
def test_wrong_setting_is_refused_before_the_model_is_loaded(inputs: Inputs, tmp_path: Path, setting: str):
    assert WRONG_SETTINGS[setting] in refusal(inputs, tmp_path / "out", "--set", setting)


@pytest.mark.usefixtures("model_untouched")
def test_unknown_preset_is_refused_with_the_nearest(inputs: Inputs, tmp_path: Path):
    assert refusal(inputs, tmp_path / "out", "--preset", "vlia") == "error: unknown preset 'vlia'. Did you mean 'vila'?"
    line = refusal(inputs, tmp_path / "out", "--preset", "zzzz")
    assert line.startswith("error: unknown preset 'zzzz'. Known presets: ")
    assert all(f" {name}" in line for name in presets())


@pytest.mark.usefixtures("model_untouched")
def test_misspelt_key_of_a_config_file_is_refused_with_the_file(inputs: Inputs, tmp_path: Path):
    config = tmp_path / "run.yaml"
    config.write_text("training: {epocs: 3}\n")
    line = refusal(inputs, tmp_path / "out", config)
    assert line == f"error: {config}: unknown key 'training.epocs'. Did you mean 'training.epochs'?"
    config.write_text("training: [1\n")
    assert refusal(inputs, tmp_path / "out", config).startswith(f"error: {config}, line 2: not valid YAML (")
    assert refusal(inputs, tmp_path / "out", tmp_path / "none.yaml").startswith(f"error: {tmp_path / 'none.yaml'}: ")


@pytest.mark.usefixtures("model_untouched")
@pytest.mark.parametrize("preset", ["marginal", "vila", "gd", "npo"])
def test_forgetting_alone_is_refused_where_the_objective_retains(inputs: Inputs, tmp_path: Path, preset: str):
    options = ("--model", inputs.model, "--forget", inputs.forget, "--preset", preset)
    line = error_line(unlora("unlearn", *options, "--output", tmp_path / "out"))
    assert "needs data.retain (--retain FILE)" in line
    assert "--set objective.retain=null with npo or ga" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("model_untouched")
def test_objective_that_needs_a_retain_term_is_refused_without(inputs: Inputs, tmp_path: Path):
    assert "'ihl' needs a retain term" in refusal(inputs, tmp_path / "out", "--set", "objective.retain=null")


def test_forgetting_alone_works_where_the_objective_allows(inputs: Inputs, tmp_path: Path):
    options = ("--model", inputs.model, "--forget", inputs.forget, "--preset", "npo", "--set", "objective.retain=null")
    result = unlora("unlearn", *options, *QUICK, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--model", "./none", "model './none': no such folder."),
        ("--base", "./base", "base './base': is only for an adapter"),
        ("--device", "gpu", "device 'gpu': not a device; use auto, cpu or cuda."),
        ("--template", "chat", "template 'chat': this tokenizer has no chat template; use 'plain' or 'auto'."),
        ("--set", "adapter.target_modules=[q_prj]", "'q_prj': matches no linear layer. Did you mean 'q_proj'?"),
        ("--set", "adapter.target_modules=[]", "target modules: the list is empty; leave it out"),
    ],
)
@pytest.mark.parametrize("command", ["unlearn", "importance"])
def test_what_does_not_fit_the_model_is_refused(
    inputs: Inputs, tmp_path: Path, command: str, option: str, value: str, expected: str
):
    assert expected in refusal(inputs, tmp_path / "out", option, value, command=command)


def test_rank_larger_than_a_layer_is_refused_before_any_work(inputs: Inputs, tmp_path: Path):
    result = unlora("unlearn", *inputs.options, "--set", "adapter.rank=64", "--output", tmp_path / "out")
    line = error_line(result)
    assert "adapter.rank: 64 does not fit target module 'model.layers.0.self_attn.q_proj' of shape (32, 32)" in line
    assert line.endswith("use 1 to 32.")
    assert "Importance" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="session")
def maps(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Importance files that do not fit a run with rank 4 on the tiny llama, for one reason each."""
    folder = tmp_path_factory.mktemp("maps")
    other = save_tiny(folder / "other_model", seed=1)
    for name, options in {
        "other_weights": ("--model", other),
        "other_architecture": ("--model", save_tiny(folder / "gpt2", "gpt2")),
        "other_modules": ("--set", "adapter.target_modules=[q_proj]"),
        "other_rank": ("--preset", "vila", "--set", "adapter.rank=8"),
    }.items():
        preset = ("--preset", "marginal") if "--preset" not in options else ()
        result = unlora("importance", *inputs.options, *preset, *options, "--output", folder / f"{name}.safetensors")
        assert result.exit_code == 0, result.output
    save_file({"weight": ones(1)}, folder / "stranger.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "other_rank.safetensors").read_bytes()[:-9])
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("other_weights", "measured on another model (weights "),
        ("other_architecture", "holds no importance for target module 'model.layers.0.self_attn.q_proj'"),
        ("other_modules", "holds no importance for target module 'model.layers.0.self_attn.k_proj' (12 missing)"),
        ("other_rank", "rank 8"),
        ("stranger", "a safetensors file, but not one that unlora wrote."),
        ("cut", "not a complete safetensors file"),
    ],
)
def test_importance_file_that_does_not_fit_is_refused(
    inputs: Inputs, maps: Path, tmp_path: Path, name: str, expected: str
):
    file = maps / f"{name}.safetensors"
    changes = ("--start", "marginal", "--set", "adapter.rank=4", "--set", f"start.file={file}")
    line = refusal(inputs, tmp_path / "out", *changes)
    assert line.startswith(f"error: {file}: ")
    assert expected in line


@pytest.mark.usefixtures("model_untouched")
@pytest.mark.parametrize("command", ["unlearn", "evaluate", "finetune"])
def test_folder_with_something_else_is_left_alone(inputs: Inputs, tmp_path: Path, command: str):
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    options = ("--model", inputs.model, "--data", inputs.forget) if command == "finetune" else inputs.options
    assert "choose another --output" in error_line(unlora(command, *options, "--output", output))
    assert [(file.name, file.read_text()) for file in output.iterdir()] == [("thesis.txt", "mine")]


@pytest.mark.usefixtures("model_untouched")
def test_folder_of_another_run_is_left_alone(inputs: Inputs, tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "config.yaml").write_text("seed: 1\n")
    line = error_line(unlora("unlearn", *inputs.options, "--output", output))
    assert (
        line == f"error: {output}: holds another run (its config.yaml differs); choose another --output or remove it."
    )
    assert read_yaml(output / "config.yaml") == {"seed": 1}
    assert len(list(output.iterdir())) == 1


@pytest.mark.usefixtures("model_untouched")
def test_existing_importance_file_is_left_alone(inputs: Inputs, tmp_path: Path):
    output = tmp_path / "map.safetensors"
    output.write_text("mine")
    line = error_line(unlora("importance", *inputs.options, "--output", output))
    assert line == f"error: {output}: already exists; choose another --output."
    assert output.read_text() == "mine"


@pytest.mark.parametrize("command", ["unlearn", "importance", "evaluate", "finetune"])
def test_output_below_a_file_is_refused_at_once(inputs: Inputs, command: str):
    options = ("--model", inputs.model, "--data", inputs.forget) if command == "finetune" else inputs.options
    result = unlora(command, *options, "--output", inputs.forget / "run" / "x")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(f"'--output': {inputs.forget} is a file, not a folder.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("export", "none", "--merged"), "error: none: no such folder."),
        (("export", "none", "--rank", "4"), "error: none: no such folder."),
        (("audit", "none"), "error: none: no such folder."),
        (("report", "none"), "error: none: no such folder."),
        (("evaluate", "--adapter", "none"), "error: none: no such folder."),
    ],
)
def test_missing_run_or_adapter_is_refused(
    inputs: Inputs, tmp_path: Path, arguments: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    options = inputs.options if arguments[0] == "evaluate" else ()
    assert error_line(unlora(*arguments, *options, "--output", "out")) == expected
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_and_what_push_and_attach_say_of_neither(inputs: Inputs, tmp_path: Path):
    line = error_line(unlora("audit", inputs.forget))
    assert line == f"error: {inputs.forget}: is a file, and a folder is read."
    none = tmp_path / "none"
    for words in (("push", none, "somebody"), ("ledger", "attach", tmp_path, none)):
        assert error_line(unlora(*words)) == f"error: {none}: no such folder."


def test_a_run_or_a_file_in_the_place_of_its_adapter_is_told_from_a_missing_one(inputs: Inputs, tmp_path: Path):
    run, out = tmp_path / "run", ("--output", tmp_path / "out")
    (run / "adapter").mkdir(parents=True)
    line = error_line(unlora("evaluate", *inputs.options, "--adapter", run, *out))
    assert line == f"error: {run}: no adapter_config.json; not an adapter folder."
    config = run / "adapter" / "adapter_config.json"
    config.write_text("{}")
    line = error_line(unlora("evaluate", *inputs.options, "--adapter", run, *out))
    assert line == f"error: {run}: no adapter_config.json; not an adapter folder. Did you mean {run / 'adapter'}?"
    line = error_line(unlora("evaluate", *inputs.options, "--adapter", config, *out))
    assert line == f"error: {config}: is a file, and a folder is read."


def test_model_with_code_of_its_own_is_refused_and_the_code_not_run(inputs: Inputs, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(inputs.model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'it_ran')!r}, 'w')\n")
    line = refusal(inputs, tmp_path / "out", "--model", folder)
    assert line.startswith(f"error: model '{folder}': needs Python code that comes with it; ")
    assert not (tmp_path / "it_ran").exists()


def test_tokenizer_without_pad_token_works(inputs: Inputs, tmp_path: Path):
    model = save_model_without_pad_token(tmp_path / "model")
    result = unlora("unlearn", *inputs.options, "--model", model, *QUICK, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """The last of four examples has some 600 tokens; the tiny models have a context of 256."""
    return write_lines(tmp_path / "long.jsonl", [*RETAIN, {"prompt": "Say:", "completion": " word" * 200}])


@pytest.mark.parametrize("max_length", [512, 64])
def test_long_example_is_truncated_and_reported_with_its_line(
    inputs: Inputs, long_file: Path, tmp_path: Path, max_length: int
):
    # GPT-2 has one embedding for each position: past its context it can only fail.
    model = save_tiny(tmp_path / "gpt2", "gpt2")
    options = ("--model", model, "--forget", long_file, "--set", f"data.max_length={max_length}")
    result = unlora("unlearn", *inputs.options, *options, *QUICK, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"1 truncated (first: {long_file}, line 4, " in result.stderr
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["template"]["max_length"] == min(max_length, 256)


def test_long_example_is_refused_on_request(inputs: Inputs, long_file: Path, tmp_path: Path):
    line = refusal(inputs, tmp_path / "out", "--forget", long_file, "--set", "data.on_long=refuse")
    assert line.startswith(f"error: {long_file}, line 4: ")
    assert "and the limit is 256; shorten it" in line


def test_prompt_that_leaves_no_room_is_refused(inputs: Inputs, tmp_path: Path):
    file = write_lines(tmp_path / "long.jsonl", [{"prompt": "word " * 200, "completion": " end"}])
    line = refusal(inputs, tmp_path / "out", "--forget", file)
    assert line.startswith(f"error: {file}, line 1: the prompt alone takes ")
    assert line.endswith("of at most 256 tokens, which leaves none for the completion.")
