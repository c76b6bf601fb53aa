"""Chat templates in the manner of well-known ones, written for the tests, with the span that is right for each."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from .conftest import build_tokenizer

MARKERS = ["<think>", "</think>", "<|user|>", "<|assistant|>", "<|done|>", "<|channel|>", "<|message|>", "[INST]"]
MARKERS += ["[/INST]", "<answer>", "</answer>", "<|open|>", "<|close|>"]

TURN = "<|turn|>{{ m.role }}\n%BODY%<|stop|>\n"
OPENING = "{% if add_generation_prompt %}<|turn|>assistant\n%THINK%{% endif %}"


def chat(body: str, opening: str = OPENING.replace("%THINK%", ""), closing: str = "") -> str:
    """A template of turns."""
    return f"{{% for m in messages %}}{body}{{% endfor %}}{opening}{closing}"


def turns(content: str, opening: str = OPENING.replace("%THINK%", "")) -> str:
    """A template of turns in <|turn|> and <|stop|> with `content` in each."""
    return chat(TURN.replace("%BODY%", content), opening)


@dataclass(frozen=True)
class Case:
    """A template, and what is right for one question and its answer."""

    template: str
    prompt: str
    completion: str
    """Without the end token that the tokeniser appends where the template has no end of turn."""
    ends_turn: bool = True


QUESTION, ANSWER = "Where was Noor born?", "In Cusco."
_ASKED = f"<|turn|>user\n{QUESTION}<|stop|>\n<|turn|>assistant\n"
_THOUGHT = "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
_NO_THOUGHT = (
    "{% if add_generation_prompt %}<|turn|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_CUT = "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}"
_PARTS = "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
_ROLES = "{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
_CHANNEL = (
    "<|turn|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last %}<|done|>{% else %}<|stop|>{% endif %}"
)

CASES = {
    "chatml": Case(turns("{{ m.content }}"), _ASKED, f"{ANSWER}<|stop|>"),
    "no_generation_prompt": Case(turns("{{ m.content }}", opening=""), _ASKED, f"{ANSWER}<|stop|>"),
    "qwen3_like": Case(turns(_THOUGHT, _NO_THOUGHT), f"{_ASKED}<think>\n\n</think>\n\n", f"{ANSWER}<|stop|>"),
    "thinking_like": Case(
        turns(_THOUGHT, OPENING.replace("%THINK%", "<think>\n")),
        f"{_ASKED}<think>\n\n</think>\n\n",
        f"{ANSWER}<|stop|>",
    ),
    "deepseek_r1_like": Case(
        chat(
            "{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}<|assistant|>"
            + _CUT
            + "{{ eos_token }}{% endif %}",
            "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}",
        ),
        f"<|user|>{QUESTION}<|assistant|>",
        f"{ANSWER}<|end|>",
    ),
    "glm_like": Case(
        chat(
            "{% if m.role == 'user' %}<|user|>\n{{ m.content }}{% else %}<|assistant|>\n<think></think>\n"
            "{{ m.content.strip() }}{% endif %}",
            "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ),
        f"<|user|>\n{QUESTION}<|assistant|>\n<think></think>\n",
        ANSWER,
        ends_turn=False,
    ),
    "channels": Case(
        chat(_CHANNEL, "{% if add_generation_prompt %}<|turn|>assistant{% endif %}"),
        f"<|turn|>user<|message|>{QUESTION}<|stop|><|turn|>assistant<|channel|>final<|message|>",
        f"{ANSWER}<|done|>",
    ),
    "phi3_like": Case(
        turns("{{ m.content }}") + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}",
        _ASKED,
        f"{ANSWER}<|stop|>",
    ),
    "end_after_every_turn": Case(
        chat(TURN.replace("%BODY%", "{{ m.content }}").replace("<|stop|>", "<|stop|>{{ eos_token }}")),
        f"<|turn|>user\n{QUESTION}<|stop|><|end|>\n<|turn|>assistant\n",
        f"{ANSWER}<|stop|>",
    ),
    "mistral_like": Case(chat(_ROLES, ""), f"[INST] {QUESTION}[/INST]", f" {ANSWER}<|end|>"),
    "blank_before_the_end": Case(
        chat(_ROLES.replace("{{ eos_token }}", " {{ eos_token }}"), ""),
        f"[INST] {QUESTION}[/INST]",
        f" {ANSWER} <|end|>",
    ),
    "wrapped_answer": Case(
        turns("{% if m.role == 'assistant' %}<|open|>{{ m.content }}<|close|>{% else %}{{ m.content }}{% endif %}"),
        f"{_ASKED}<|open|>",
        f"{ANSWER}<|close|><|stop|>",
    ),
    "parts": Case(turns(_PARTS), _ASKED, f"{ANSWER}<|stop|>"),
    "parts_of_the_user_alone": Case(
        turns("{% if m.role == 'user' %}" + _PARTS + "{% else %}{{ m.content }}{% endif %}"),
        _ASKED,
        f"{ANSWER}<|stop|>",
    ),
    "parts_or_an_error": Case(
        turns("{% if m.content is string %}{{ raise_exception('a list, please') }}{% endif %}" + _PARTS),
        _ASKED,
        f"{ANSWER}<|stop|>",
    ),
    "trimmed": Case(turns("{{ m.content | trim }}"), _ASKED, f"{ANSWER}<|stop|>"),
    "generation_tag": Case(turns("{% generation %}{{ m.content }}{% endgeneration %}"), _ASKED, f"{ANSWER}<|stop|>"),
    "marks_that_are_no_tokens": Case(
        chat(
            "### {{ m.role }}: {{ m.content }}\n### end\n", "{% if add_generation_prompt %}### assistant: {% endif %}"
        ),
        f"### user: {QUESTION}\n### end\n### assistant: ",
        f"{ANSWER}\n### end",
    ),
}
"""By what a template is like."""


def tokenizer_with(template: object) -> PreTrainedTokenizerFast:
    """A tokenizer that never takes the markers of these templates apart."""
    tokenizer = build_tokenizer(chat_template=None)
    tokenizer.add_tokens(MARKERS, special_tokens=True)
    tokenizer.chat_template = template  # type: ignore[assignment]
    return tokenizer
