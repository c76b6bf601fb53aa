"""A chat template is chosen by name, gets arguments and a frozen date, and fails in one line."""

import datetime
import re

import jinja2
import pytest

from unlora.data.chat_template import ChatTemplate
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError

from .chat_templates import ANSWER, CASES, QUESTION, tokenizer_with, turns

FROZEN = datetime.datetime(2024, 7, 26)
PLAIN = turns("{{ m.content }}")


def _example() -> Example:
    return Example("question_answer", QUESTION, ANSWER, "x, line 7")


def _prompt(source: object, **options: object) -> str:
    tokeniser = ExampleTokeniser(tokenizer_with(source), **{"max_length": 500, **options})  # type: ignore[arg-type]
    return tokeniser.render(_example()).prompt


# --- several templates ------------------------------------------------------------------------------------------------


def test_of_several_templates_the_default_or_the_named_one_is_taken() -> None:
    several = {"default": PLAIN, "rag": f"Read.\n{PLAIN}"}
    assert _prompt(several) == _prompt(PLAIN)
    assert _prompt(several, chat_template="rag") == f"Read.\n{_prompt(PLAIN)}"
    assert _prompt({"rag": PLAIN}) == _prompt(PLAIN)


def test_several_templates_without_a_default_must_be_chosen_from() -> None:
    with pytest.raises(InputError, match=r"several chat templates, 'rag', 'tools', and none called 'default'; choose "):
        _prompt({"tools": PLAIN, "rag": PLAIN})
    assert _prompt({"tools": PLAIN, "rag": PLAIN}, template="plain") == f"Question: {QUESTION}\nAnswer:"


def test_wrong_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"no chat template 'rga', but 'default', 'rag'\. Did you mean 'rag'\?"):
        _prompt({"default": PLAIN, "rag": PLAIN}, chat_template="rga")
    with pytest.raises(InputError, match="chat_template 'rag': the tokenizer has one chat template only"):
        _prompt(PLAIN, chat_template="rag")
    with pytest.raises(InputError, match="chat_template: is of the chat template, and template 'plain' is none"):
        _prompt(PLAIN, chat_template="rag", template="plain")


def test_a_template_that_is_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="chat template is no text but int"):
        _prompt(5)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_reach_the_template_and_are_described() -> None:
    template = "{% if style is defined %}Style: {{ style.name }}.\n{% endif %}" + PLAIN
    arguments = {"style": {"name": "brief"}}
    assert _prompt(template, template_arguments=arguments) == "Style: brief.\n" + _prompt(PLAIN)
    plain, styled = (
        ExampleTokeniser(tokenizer_with(template), max_length=500, template_arguments=given).describe()
        for given in (None, arguments)
    )
    assert (plain["template_arguments"], styled["template_arguments"]) == ({}, arguments)
    assert plain["rendered_probe_sha256"] != styled["rendered_probe_sha256"]


def test_thinking_switched_off_gives_the_prompt_that_the_rendering_has_anyway() -> None:
    template = CASES["qwen3_like"].template
    off = ExampleTokeniser(tokenizer_with(template), max_length=500, template_arguments={"enable_thinking": False})
    chat = ChatTemplate(off.tokenizer, arguments={"enable_thinking": False})
    opening = chat.render([{"role": "user", "content": QUESTION}], [False], "here", generation=True)
    assert opening == off.render(_example()).prompt == _prompt(template)


def test_arguments_that_are_never_read_are_refused() -> None:
    template = CASES["qwen3_like"].template
    with pytest.raises(InputError, match="never reads 'enable_thinkin'; it reads enable_thinking"):
        _prompt(template, template_arguments={"enable_thinkin": False})
    with pytest.raises(InputError, match="never reads 'x'; it reads none"):
        _prompt(PLAIN, template_arguments={"x": 1})
    with pytest.raises(InputError, match="template_arguments: is of the chat template, and template 'plain' is none"):
        _prompt(template, template="plain", template_arguments={"enable_thinking": False})


def test_an_argument_with_a_default_of_the_template_s_own_is_read() -> None:
    template = "{% set tone = tone | default('kind') %}{{ tone }}\n" + PLAIN
    assert _prompt(template).startswith("kind\n")
    assert _prompt(template, template_arguments={"tone": "dry"}).startswith("dry\n")
    tagged = "{{ tone }}\n" + CASES["generation_tag"].template
    assert _prompt(tagged, template_arguments={"tone": "dry"}).startswith("dry\n")


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "tokenize", "eos_token", "strftime_now"])
def test_arguments_that_unlora_sets_itself_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"template_arguments: '{name}' is set by unlora itself; leave it out"):
        _prompt("{{ " + name + " }}" + PLAIN, template_arguments={name: True})


# --- the date ---------------------------------------------------------------------------------------------------------

FORMATS = ["%-d %B", "%e", "%d %b %Y", "%Y-%m-%d %H:%M:%S", "%j %U %w %a %A %p %I %y %% %x", "%B %-d, %Y", "", "today"]


@pytest.mark.parametrize("wanted", FORMATS)
def test_the_frozen_date_is_written_in_every_way(wanted: str) -> None:
    assert _prompt("{{ strftime_now('" + wanted + "') }}|" + PLAIN) == f"{FROZEN.strftime(wanted)}|{_prompt(PLAIN)}"


def test_formats_put_together_by_the_template_are_written_too() -> None:
    dated = "{% macro day(f) %}{{ strftime_now(f ~ '-%m') }}{% endmacro %}"
    dated += "{% for f in ['%d', '%-d'] %}{{ day(f) }} {% endfor %}"
    assert _prompt(dated + PLAIN) == f"26-07 26-07 {_prompt(PLAIN)}"
    known = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}"
    assert _prompt(known + PLAIN) == f"2024{_prompt(PLAIN)}"


def test_a_date_format_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="x, line 7: the chat template refuses these turns"):
        _prompt("{% for n in range(200) %}{{ strftime_now('%d ' ~ n) }}{% endfor %}" + PLAIN)


@pytest.mark.parametrize(
    "start", ["", "\n", "\n\n", "  ", "   {% if true %}\n  a\n{% endif %}", "\n{# note #}\n", "{{- 'b' }}"]
)
def test_the_beginning_of_a_template_is_rendered_as_transformers_does(start: str) -> None:
    tokenizer = tokenizer_with(start + PLAIN)
    messages = [{"role": "user", "content": QUESTION}]
    assert _prompt(start + PLAIN) == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


# --- failures ---------------------------------------------------------------------------------------------------------

FAILURES = {
    "{{ raise_exception('roles must alternate') }}": r"refuses these turns \(roles must alternate\)",
    "{% for m in %}": "refuses these turns",
    "{{ unknown.key.other }}": "refuses these turns",
    "{{ m | no_such_filter }}": "refuses these turns",
    "{{ ().__class__.__bases__ }}": "refuses these turns",
    "{{ 1 / 0 }}": r"fails on these turns \(zero division",
    "{{ messages + 1 }}": r"fails on these turns \(type",
    "{{ messages[0] + 'a' }}": r"fails on these turns \(type",
    "{{ 'a'.index('b') }}": r"fails on these turns \(value",
    "{{ '%d' | format('a') }}": r"fails on these turns \(type",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": r"fails on these turns \(recursion",
    "{% include 'x' %}": "fails on these turns|refuses these turns",
    "{{ raise_exception('a\\nb \\x1b[31mred' ~ 'z' * 900) }}": r"refuses these turns \(a b \[31mredz{1,200}\)\.$",
    "{{ 'x' * 3000000 }}": r"writes 3,000,\d+ characters around a few words",
    "{{ 'x' * 50000000000 }}": r"fails on these turns \(memory",
    "{% for a in range(9000) %}{{ messages[0].content * 900 }}{% endfor %}": "MemoryError|around a few words",
}


@pytest.mark.parametrize("start", FAILURES)
def test_every_failure_of_a_template_is_one_line(start: str) -> None:
    with pytest.raises(InputError, match=rf"^x, line 7: .*({FAILURES[start]})") as caught:
        _prompt(start + PLAIN)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    assert not isinstance(caught.value.__cause__, jinja2.TemplateError)


def test_a_power_is_refused_before_anything_is_computed() -> None:
    """One step of the machine computes it, so that no limit of time would stop it."""
    with pytest.raises(InputError, match=r"^the tokenizer's chat template, line 2: raises to a power"):
        _prompt("\n{{ 10 ** (10 ** 9) }}" + PLAIN)
    assert "**bold**" in _prompt("**bold** {{ '**' }}" + PLAIN)


def test_a_template_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from unlora.data import chat_template, template_limits

    monkeypatch.setattr(chat_template, "limited", lambda: template_limits.limited(seconds=0.3))
    endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    with pytest.raises(InputError, match=re.escape("timeout: not done after 0.3 seconds")):
        _prompt(endless + PLAIN)
    assert _prompt(PLAIN)
