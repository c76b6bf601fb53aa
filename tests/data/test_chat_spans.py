"""What is scored of an answer that a chat template writes: its own text, and the end of its turn."""

import pytest

from unlora.data.records import Example
from unlora.data.templates import RenderedExample
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError

from .chat_templates import ANSWER, CASES, QUESTION, chat, tokenizer_with, turns

ASKED = f"<|turn|>user\n{QUESTION}<|stop|>\n<|turn|>assistant\n"


def _tokeniser(template: object, **options: object) -> ExampleTokeniser:
    return ExampleTokeniser(tokenizer_with(template), **{"max_length": 10_000, **options})  # type: ignore[arg-type]


def _example(answer: str = ANSWER, question: str = QUESTION) -> Example:
    return Example("question_answer", question, answer, "x, line 7")


def _talk(*texts: str, system: str | None = None) -> Example:
    """Turns that alternate, the last one the answer."""
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts[:-1], strict=False)]
    messages = [*([{"role": "system", "content": system}] if system else []), *messages]
    return Example("messages", texts[-2], texts[-1], "x, line 7", messages=tuple(messages))


def _render(template: object, example: Example, **options: object) -> RenderedExample:
    return _tokeniser(template, **options).render(example)


# --- the span of every kind of template -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_all_before_the_answer_s_own_text_is_prompt(name: str) -> None:
    case = CASES[name]
    rendered = _render(case.template, _example())
    assert (rendered.prompt, rendered.completion) == (case.prompt, case.completion)
    assert rendered.append_eos is not case.ends_turn


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_those_of_prompt_and_completion(name: str) -> None:
    """The oracle is the tokenizer alone, on the text that is right, prompt and completion apart."""
    case = CASES[name]
    tokeniser = _tokeniser(case.template)
    encoded, tokenizer = tokeniser.encode(_example()), tokeniser.tokenizer
    end = [] if case.ends_turn else [tokenizer.eos_token_id]
    scored = tokenizer(case.completion, add_special_tokens=False)["input_ids"]
    assert list(encoded.input_ids[encoded.prompt_length :]) == [*scored, *end]
    assert tokenizer.decode(list(encoded.input_ids[: encoded.prompt_length])) == case.prompt
    assert list(tokeniser.prompt_ids(_example())) == tokenizer(case.prompt, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("answer", [f" {ANSWER}", f"{ANSWER} ", f"\n{ANSWER}\n\n"])
def test_white_space_around_an_answer_changes_nothing_else(name: str, answer: str) -> None:
    """A template keeps it or trims it; prompt, end of turn and the answer itself stay."""
    case = CASES[name]
    rendered = _render(case.template, _example(answer))
    assert rendered.prompt.rstrip(" ") == case.prompt.rstrip(" ")
    assert rendered.append_eos is not case.ends_turn
    assert rendered.completion.split() == case.completion.split() or rendered.completion.replace(" ", "").replace(
        "\n", ""
    ) == case.completion.replace(" ", "").replace("\n", "")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "answer", ["assistant", "user", "think", "stop", "<|turn|>", "n", "In", "e", "Noor", "\\'\"<&>"]
)
def test_answers_that_stand_in_the_scaffold_too_are_found(name: str, answer: str) -> None:
    case = CASES[name]
    rendered = _render(case.template, _example(answer))
    assert rendered.prompt == case.prompt
    assert rendered.completion == case.completion.replace(ANSWER, answer)


@pytest.mark.parametrize("name", CASES)
def test_an_answer_of_an_earlier_turn_is_not_taken_for_it(name: str) -> None:
    case = CASES[name]
    talk = _talk(f"Say: {ANSWER}", ANSWER, f"{ANSWER} {QUESTION}", ANSWER)
    rendered = _render(case.template, talk)
    assert rendered.completion == case.completion
    assert rendered.prompt.count(ANSWER) == 3
    assert rendered.prompt.endswith(case.prompt[case.prompt.index(QUESTION) :])


# --- what depends on the answer ---------------------------------------------------------------------------------------

REWRITES_THOUGHTS = turns(
    "{% if m.role == 'assistant' %}<think>\n{{ m.content.split('</think>')[0].split('<think>')[1].strip() "
    "if '</think>' in m.content else '' }}\n</think>\n\n{{ m.content.split('</think>')[-1].strip() }}"
    "{% else %}{{ m.content }}{% endif %}"
)


def test_thoughts_of_an_answer_are_scored_where_the_template_keeps_them() -> None:
    answer = "<think>\nNoor is of Peru.\n</think>\n\nIn Cusco."
    rendered = _render(REWRITES_THOUGHTS, _example(answer))
    assert (rendered.prompt, rendered.completion) == (ASKED, f"{answer}<|stop|>")
    assert _render(REWRITES_THOUGHTS, _example()).prompt == f"{ASKED}<think>\n\n</think>\n\n"


@pytest.mark.parametrize("name", ["deepseek_r1_like", "qwen3_like"])
def test_thoughts_that_are_cut_or_written_anew_are_refused(name: str) -> None:
    template = {"deepseek_r1_like": CASES[name].template, "qwen3_like": REWRITES_THOUGHTS}[name]
    with pytest.raises(InputError, match=r"^x, line 7: the chat template leaves out or rewrites the answer; use "):
        _render(template, _example("<think>Noor is of Peru.</think>In Cusco."))


def test_thoughts_of_an_earlier_answer_may_be_left_out() -> None:
    talk = _talk("Who?", "<think>Hm.</think>Noor.", QUESTION, ANSWER)
    rendered = _render(CASES["deepseek_r1_like"].template, talk)
    assert rendered.prompt == f"<|user|>Who?<|assistant|>Noor.<|end|><|user|>{QUESTION}<|assistant|>"


def test_an_answer_that_brings_its_end_along_has_one() -> None:
    for name in ("chatml", "deepseek_r1_like"):
        case = CASES[name]
        assert _render(case.template, _example(case.completion)).completion == case.completion
    unless = turns("{{ m.content }}").replace(
        "<|stop|>", "{% if not m.content.endswith('<|stop|>') %}<|stop|>{% endif %}"
    )
    assert _render(unless, _example(f"{ANSWER}<|stop|>")).completion == f"{ANSWER}<|stop|>"


# --- what is refused --------------------------------------------------------------------------------------------------

CHANGES_TEXT = {
    "escaped": "{{ m.content | e }}",
    "upper case": "{{ m.content | upper }}",
    "as JSON": "{{ m.content | tojson }}",
    "capitalised": "{{ m.content | capitalize }}",
    "a list as Python prints it": "{{ [m.content] }}",
    "in a URL": "{{ m.content | urlencode }}",
    "nothing at all": "",
    "the beginning": "{{ m.content[:3] }}",
    "twice": "{{ m.content }} {{ m.content }}",
    "reversed": "{{ m.content[::-1] }}",
}


@pytest.mark.parametrize("how", CHANGES_TEXT)
def test_templates_that_change_the_answer_are_refused_even_where_it_would_stay(how: str) -> None:
    body = "{% if m.role == 'assistant' %}" + CHANGES_TEXT[how] + "{% else %}{{ m.content }}{% endif %}"
    for answer in (ANSWER, "IN CUSCO."):
        with pytest.raises(InputError, match=r"^x, line 7: the chat template leaves out or rewrites the answer; use "):
            _render(turns(body), _example(answer))


@pytest.mark.parametrize("how", [how for how in CHANGES_TEXT if how != "twice"])
def test_templates_that_change_the_question_are_refused(how: str) -> None:
    body = "{% if m.role == 'user' %}" + CHANGES_TEXT[how] + "{% else %}{{ m.content }}{% endif %}"
    with pytest.raises(
        InputError, match=r"^x, line 7: the chat template leaves out or rewrites the text of a turn of "
    ):
        _render(turns(body), _example())


def test_a_question_that_is_left_out_is_refused_even_where_its_words_stand_elsewhere() -> None:
    template = f"You are asked: {QUESTION}\n" + turns("{{ m.content if m.role == 'assistant' else '' }}")
    with pytest.raises(InputError, match="of a turn of role 'user'"):
        _render(template, _example())


def test_an_answer_that_only_some_templates_change_is_refused_alone() -> None:
    template = turns("{{ m.content.replace('Cusco', 'Lima') }}")
    assert _render(template, _example("In Porto.")).completion == "In Porto.<|stop|>"
    with pytest.raises(InputError, match="rewrites the answer"):
        _render(template, _example("In Cusco."))
    with pytest.raises(InputError, match="of a turn of role 'user'"):
        _render(template, _example("In Porto.", "Is Cusco near?"))


def test_a_system_turn_that_is_left_out_is_refused() -> None:
    drops = turns("{{ m.content }}").replace(
        "<|turn|>{{ m.role }}", "{% if m.role != 'system' %}<|turn|>{{ m.role }}", 1
    )
    drops = drops.replace("<|stop|>\n{% endfor %}", "<|stop|>\n{% endif %}{% endfor %}")
    assert _render(drops, _example()).prompt == ASKED
    with pytest.raises(InputError, match="of a turn of role 'system'"):
        _render(drops, _talk(QUESTION, ANSWER, system="Be brief."))


def test_only_the_last_turn_written_is_refused_for_several() -> None:
    last = "{% for m in messages[-2:] %}" + turns("{{ m.content }}").split("%}", 1)[1]
    assert _render(last, _example()).prompt == ASKED
    with pytest.raises(InputError, match="of a turn of role 'user'"):
        _render(last, _talk("Who?", "Noor.", QUESTION, ANSWER))


def test_a_prompt_that_is_another_once_answered_is_refused() -> None:
    template = "{% if add_generation_prompt %}Answer briefly.\n{% endif %}" + turns("{{ m.content }}")
    with pytest.raises(InputError, match=r"^x, line 7: .* renders the prompt differently once answered; use template"):
        _render(template, _example())


def test_a_special_token_that_swallows_a_blank_of_the_answer_stays_prompt() -> None:
    from tokenizers import AddedToken

    tokenizer = tokenizer_with(None)
    tokenizer.add_tokens([AddedToken("<|bot|>", rstrip=True, special=True)])  # type: ignore[list-item]
    tokenizer.chat_template = chat(
        "{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}<|bot|>\n{{ m.content }}<|stop|>{% endif %}",
        "{% if add_generation_prompt %}<|bot|>\n{% endif %}",
    )
    tokeniser = ExampleTokeniser(tokenizer, max_length=100)
    alone = tokenizer(f"{ANSWER}<|stop|>")["input_ids"]
    for answer in (ANSWER, f"  {ANSWER}"):
        encoded = tokeniser.encode(_example(answer))
        assert list(encoded.input_ids[encoded.prompt_length :]) == alone
        assert encoded.input_ids[: encoded.prompt_length] == tokeniser.prompt_ids(_example(answer))
