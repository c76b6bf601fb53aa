"""What was written for unlora 0.1 gives the same settings, and a line that says what to write."""

from pathlib import Path

import pytest

from tests.cli.commands import unlora
from unlora.errors import InputError
from unlora.run.old_presets import OLD_PRESETS, what_to_write
from unlora.run.presets import resolve_settings
from unlora.run.settings import UnlearnSettings
from unlora.run.starting import chosen_start, freezes_a

FLAGS = {"model.name": "m", "data.forget": "f", "data.retain": "r"}
OF_A_FILE = [
    ("{}", "marginal", {"statistic": "variance", "max_retain_examples": 64}),
    ("{initialisation: shuffled}", "marginal", {"shuffle_rows": True}),
    ("{initialisation: shuffled, space: full_weights}", "variance_full", {"shuffle_rows": True}),
    ("{space: lora_factors, probe_std: 0.1}", "vila", {"probe_std": 0.1, "statistic": "variance"}),
    ("{space: full_weights, statistic: second_moment, offload: disk}", "variance_full", {"offload": "disk"}),
    ("{arithmetic: published, space: lora_factors, passes: 3}", "vila_published", {"passes": 3, "batch_size": 8}),
    ("{arithmetic: published, space: full_weights, statistic: second_moment}", "fila_published", {"passes": 10}),
    ("{initialisation: contrast, damping: 0.5}", "contrast", {"damping": 0.5, "max_retain_examples": 64}),
    ("{initialisation: reglu, orthogonality: 2}", "reglu", {"orthogonality": 2.0}),
    ("{initialisation: plain}", "plain", {}),
]  # fmt: skip


@pytest.mark.parametrize(("section", "kind", "fields"), OF_A_FILE)
def test_old_section_of_a_file_is_read(tmp_path: Path, section: str, kind: str, fields: dict[str, object]):
    file = tmp_path / "old.yaml"
    file.write_text(f"importance: {section}\n")
    said: list[str] = []
    settings = resolve_settings(preset_name=None, config_file=file, flags=FLAGS, overrides=[], say=said.append)
    start = chosen_start(settings)
    assert start.kind == kind
    assert {key: start.model_dump()[key] for key in fields} == fields
    assert settings.adapter.freeze_a is False  # as it was, unless the file said otherwise
    (line,) = said
    assert f"'importance' is 'start' now (start.kind: {kind}" in line
    again = UnlearnSettings.from_mapping(settings.model_dump(mode="json"))
    assert again == settings


def test_old_keys_on_top_of_a_preset(tmp_path: Path):
    said: list[str] = []
    settings = resolve_settings(
        preset_name=None, config_file=None, flags=FLAGS, overrides=["importance.damping=2"], say=said.append
    )
    start = chosen_start(settings)
    assert (start.kind, start.model_dump()["damping"]) == ("contrast_inputs", 2.0)
    assert start.model_dump()["max_retain_examples"] == 128
    assert freezes_a(settings.adapter, start) is True
    assert len(said) == 1


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{initialisation: plain, damping: 9}", "importance.damping: start 'plain' has no such setting"),
        ("{initialisation: contrasts}", "settings: importance.initialisation: must be"),
        ("{dampin: 9}", "settings: unknown key 'importance.dampin'. Did you mean 'damping'"),
        ("5", "importance: must be a section of keys"),
    ],
)
def test_what_the_old_section_never_had_is_refused(tmp_path: Path, section: str, message: str):
    file = tmp_path / "old.yaml"
    file.write_text(f"importance: {section}\n")
    with pytest.raises(InputError, match=message):
        resolve_settings(preset_name=None, config_file=file, flags=FLAGS, overrides=[])


@pytest.mark.parametrize("name", OLD_PRESETS)
def test_old_preset_is_what_its_line_says(name: str):
    said: list[str] = []
    old = resolve_settings(preset_name=name, config_file=None, flags=FLAGS, overrides=[], say=said.append)
    (line,) = said
    words = what_to_write(OLD_PRESETS[name]).split()
    assert " ".join(words) in line
    options = dict(zip(words[::2], words[1::2], strict=True)) if "--set" not in words else {}
    flags, overrides = dict(FLAGS), []
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option == "--set":
            overrides.append(value)
        elif option != "--preset":
            flags[{"--start": "start.kind", "--loss": "objective.forget"}[option]] = value
    new = resolve_settings(preset_name=options.get("--preset"), config_file=None, flags=flags, overrides=overrides)
    assert new == old
    chosen_start(new)


@pytest.mark.parametrize(
    ("name", "kind", "frozen", "loss", "rate"),
    [
        ("contrast_inputs", "contrast_inputs", True, "ihl", 2e-4),
        ("contrast", "contrast", False, "ihl", 2e-4),
        ("marginal", "marginal", False, "ihl", 5e-4),
        ("shuffled", "shuffled", False, "ihl", 5e-4),
        ("gd", "marginal", False, "gd", 1e-4),
        ("rmu", "marginal", False, "rmu", 5e-4),
        ("npo", "contrast_inputs", True, "npo", 2e-4),
    ],
)
def test_old_preset_keeps_its_settings(name: str, kind: str, frozen: bool, loss: str, rate: float):
    settings = resolve_settings(preset_name=name, config_file=None, flags=FLAGS, overrides=[])
    start = chosen_start(settings)
    assert (start.kind, freezes_a(settings.adapter, start)) == (kind, frozen)
    assert (settings.objective.forget, settings.training.learning_rate) == (loss, rate)


def test_two_flags_choose_start_and_loss_alone():
    """What was set for the start before, and for the loss before, goes with it."""
    flags = {**FLAGS, "start.kind": "vila", "objective.forget": "simnpo"}
    overrides = ["start.probe_std=0.2", "objective.forget_parameters.beta=3"]
    settings = resolve_settings(preset_name="npo", config_file=None, flags=flags, overrides=overrides)
    assert settings.start.model_dump() == {"kind": "vila", "probe_std": 0.2}
    assert (settings.objective.forget, settings.objective.forget_parameters) == ("simnpo", {"beta": 3})
    assert freezes_a(settings.adapter, chosen_start(settings)) is False


def test_listing_names_recipes_starts_and_losses():
    text = unlora("presets", "ls").output
    for word in ("default", "vila_published", "contrast_inputs", "reglu", "--start NAME", "simnpo"):
        assert word in text
