"""Configurations: strict, dotted, repeatable."""

from pathlib import Path

import pytest
from pydantic import Field, JsonValue, ValidationError

from unlora.audit.settings import AuditSettings
from unlora.config import Config, merge, parse_overrides, read_yaml
from unlora.errors import InputError
from unlora.run.presets import resolve_settings


class Engine(Config):
    """A section."""

    power: float = Field(default=1.0, gt=0)
    """Watt."""
    fuel: str = "wood"


class Ship(Config):
    """The whole."""

    name: str
    engine: Engine = Engine()
    masts: int = 2
    ports: list[str] = Field(default_factory=list)


def refusal(values: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        Ship.from_mapping(values, where="ship.yaml")
    return str(caught.value)


def test_valid_mapping_becomes_a_frozen_record():
    ship = Ship.from_mapping({"name": "Ada", "engine": {"power": 3}})
    assert (ship.name, ship.engine.power, ship.engine.fuel, ship.masts) == ("Ada", 3.0, "wood", 2)
    with pytest.raises(ValidationError):
        ship.masts = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "ship.yaml: key 'name' is missing."),
        ({"name": "A", "mast": 1}, "ship.yaml: unknown key 'mast'. Did you mean 'masts'?"),
        (
            {"name": "A", "engine": {"pover": 1}},
            "ship.yaml: unknown key 'engine.pover'. Did you mean 'engine.power'?",
        ),
        ({"name": "A", "fuel": "oil"}, "ship.yaml: unknown key 'fuel'. Did you mean 'engine.fuel'?"),
        (
            {"name": "A", "engine": {"x": 1}},
            "ship.yaml: unknown key 'engine.x'. Known keys: engine.power, engine.fuel.",
        ),
        ({"name": "A", "engine": 5}, "ship.yaml: engine: must be a section of keys (found 5)."),
        ({"name": "A", "engine": None}, "ship.yaml: engine: must be a section of keys (found nothing)."),
        ({"name": "A", "ports": "Rome"}, "ship.yaml: ports: must be a list, such as [Rome] (found 'Rome')."),
        ({"name": "A", "engine": {"power": 0}}, "ship.yaml: engine.power: must be greater than 0 (found 0)."),
        (
            {"name": "A", "engine": {"power": float("inf")}},
            "ship.yaml: engine.power: must be a finite number (found inf).",
        ),
    ],
)
def test_first_problem_is_one_line_with_its_dotted_key(values: dict[str, object], message: str):
    assert refusal(values) == message


def test_yaml_and_back_is_the_same(tmp_path: Path):
    ship = Ship(name="Åse: «x»", engine=Engine(power=1e-4), ports=["Rome", "no", "12"])
    (tmp_path / "ship.yaml").write_text(ship.to_yaml(), encoding="utf-8")
    assert Ship.from_mapping(read_yaml(tmp_path / "ship.yaml")) == ship


def test_hash_is_of_the_content():
    first = Ship.from_mapping({"name": "Ada", "masts": 2})
    assert first.sha256() == Ship(name="Ada").sha256()
    assert first.sha256() != Ship(name="Ada", masts=3).sha256()


def test_merge_goes_section_by_section():
    base = {"a": {"x": 1, "y": 2}, "b": 1}
    assert merge(base, {"a": {"y": 3}, "c": 4}) == {"a": {"x": 1, "y": 3}, "b": 1, "c": 4}
    assert base == {"a": {"x": 1, "y": 2}, "b": 1}
    assert merge({"a": {"x": 1}}, {"a": None}) == {"a": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5", 1.5),
        ("3", 3),
        ("null", None),
        ("true", True),
        ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("runs/x=1.jsonl", "runs/x=1.jsonl"),
        ("tofu:forget01@/data", "tofu:forget01@/data"),
        ("[open", "[open"),
        ("", None),
    ],
)
def test_override_is_read_as_yaml(text: str, value: object):
    assert parse_overrides([f"a.b={text}"]) == {"a": {"b": value}}


def test_later_overrides_win_and_sections_join():
    assert parse_overrides(["a.x=1", "a.y=2", "a.x=3"]) == {"a": {"x": 3, "y": 2}}


@pytest.mark.parametrize("assignment", ["a.b", "=1", "a..b=1", ".a=1", "a.=1"])
def test_override_without_key_or_value_is_refused(assignment: str):
    with pytest.raises(InputError, match=r"must look like section\.key=value"):
        parse_overrides([assignment])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1\n", "line 2: not valid YAML"),
        ("a: 1\n\tb: 2\n", "line 2: not valid YAML"),
        ("- 1\n", "must hold keys and values, found list."),
        ("just text", "must hold keys and values, found str."),
        ("a: !!python/object:os.system x\n", "line 1: not valid YAML"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(tmp_path: Path, content: str, message: str):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_yaml(file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_yaml_is_an_empty_mapping(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid YAML"):
        read_yaml(tmp_path / "bad.yaml")


def test_settings_are_laid_over_each_other_in_order(tmp_path: Path):
    config = tmp_path / "run.yaml"
    config.write_text("objective: {retain_weight: 2.0}\nseed: 5\ndata: {forget: file.jsonl}\ntraining: {epochs: 7}\n")
    settings = resolve_settings(
        preset_name="npo",
        config_file=config,
        flags={"model.name": "m", "data.forget": "flag.jsonl", "data.retain": "r", "seed": None},
        overrides=["training.epochs=9", "objective.forget_parameters.beta=0.2"],
    )
    assert (settings.objective.forget, settings.objective.retain_weight) == ("npo", 2.0)
    assert settings.objective.forget_parameters == {"beta": 0.2}
    assert (settings.seed, settings.data.forget, settings.training.epochs) == (5, "flag.jsonl", 9)
    assert settings.start.kind == "contrast_inputs"


def test_config_file_without_preset_stands_alone(tmp_path: Path):
    config = tmp_path / "run.yaml"
    config.write_text("start: {kind: plain}\n")
    flags = {"model.name": "m", "data.forget": "f", "data.retain": "r"}
    settings = resolve_settings(preset_name=None, config_file=config, flags=flags, overrides=[])
    assert settings.start.kind == "plain"
    with pytest.raises(InputError, match=r"run\.yaml: key 'model\.name' is missing\."):
        resolve_settings(preset_name=None, config_file=config, flags={}, overrides=[])


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("seed: 010", 10),
        ("seed: 0o17", 15),
        ("seed: 0x1f", 31),
        ("seed: 1_000", 1000),
        ("seed: 1e-4", 1e-4),
        ("seed: -.5e3", -500.0),
        ("seed: 1:30", "1:30"),
        ("seed: 1.2.3", "1.2.3"),
        ("seed: &x 3\nother: *x", 3),
    ],
)
def test_numbers_are_what_they_look_like(tmp_path: Path, text: str, right: object):
    """YAML 1.1 reads the first as eight, 1:30 as ninety and 1e-4 as text."""
    file = tmp_path / "run.yaml"
    file.write_text(text)
    found = read_yaml(file)["seed"]
    assert (found, type(found)) == (right, type(right))


ALIASES = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + place)}: &{chr(98 + place)} [*{chr(97 + place)}, *{chr(97 + place)}]\n" for place in range(20)
)
UNREADABLE = {
    "seed: {a: 1}\nother: 1\nseed: {b: 2}\n": "line 3: not valid YAML (key 'seed' is given twice, first in line 1",
    "training: {epochs: 1, epochs: 2}\n": "line 1: not valid YAML (key 'epochs' is given twice, in one line",
    "seed: 1\n'seed': 2\n": "key 'seed' is given twice",
    ALIASES: "more than 20 aliases",
    "seed: " + "[" * 5000: "nested too deeply",
    "seed: " + "9" * 6000: "Exceeds the limit",
    "day: 2024-13-45\n": "month must be in 1..12",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_yaml_takes_in_silence_or_with_a_traceback_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_yaml(file)
    assert UNREADABLE[text] in str(caught.value)
    assert len(str(caught.value)) < 400


def test_merged_keys_of_an_alias_may_be_given_again(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(file)["b"] == {"x": 1, "y": 3}


def test_repeated_key_of_an_override_is_refused():
    with pytest.raises(InputError, match=r"--set training: key 'epochs' is given twice"):
        parse_overrides(["training={epochs: 1, epochs: 2}"])


def test_section_is_not_laid_over_a_value():
    """`training:` without a space before the first key is text; the next source would replace it without a word."""
    with pytest.raises(InputError, match=r"training: must be a section of keys \(found 'epochs:1'\)"):
        merge({"training": "epochs:1"}, {"training": {"batch_size": 4}})


class Numbers(Config):
    """Fields that true is not for, and two that it is for."""

    whole: int = 1
    part: float | None = None
    many: tuple[int, ...] = ()
    switch: bool = False
    free: dict[str, JsonValue] = Field(default_factory=dict)


@pytest.mark.parametrize("values", [{"whole": True}, {"part": False}, {"many": [1, True]}])
def test_true_is_no_number(values: dict[str, object]):
    (key,) = values
    with pytest.raises(InputError, match=rf"{key}: must be a number, not true or false \(found .*(True|False)"):
        Numbers.from_mapping(values)


def test_true_is_taken_where_it_is_meant():
    found = Numbers.from_mapping({"switch": True, "free": {"a": True}, "whole": 2, "many": [1, 2]})
    assert (found.switch, found.free["a"], found.whole, found.many) == (True, True, 2, (1, 2))


def test_long_values_and_keys_are_cut_in_a_message():
    for values in ({"whole": "x" * 100_000}, {"k" * 5000: 1}, {"whole": [["x"] * 1000] * 1000}):
        with pytest.raises(InputError) as caught:
            Numbers.from_mapping(values)
        assert len(str(caught.value)) < 400


def test_every_seed_is_one_that_numpy_takes():
    flags = {"model.name": "m", "data.forget": "f", "data.retain": "r"}
    for text, works in (("seed=4294967295", True), ("seed=4294967296", False), ("seed=-1", False)):
        arguments = {"preset_name": None, "config_file": None, "flags": flags, "overrides": [text]}
        if works:
            assert resolve_settings(**arguments).seed == 2**32 - 1
        else:
            with pytest.raises(InputError, match="seed: must be"):
                resolve_settings(**arguments)
    for seeds in ([-1], [2**32], [True], []):
        with pytest.raises(InputError, match=r"relearning\.seeds"):
            AuditSettings.from_mapping({"relearning": {"seeds": seeds}})


def test_integers_no_library_counts_up_to_are_refused():
    assert refusal({"name": "A", "masts": 2**32}) == "ship.yaml: masts: must be at most 4294967295 (found 4294967296)."
    assert len(refusal({"name": "A", "masts": 10**200})) < 160
