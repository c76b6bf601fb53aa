"""Tokenizers and chat templates: damaged files, tokens that the model lacks, templates that fail or bend the answer."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.harness import oracle
from tests.faults.harness.areas.models import Spoil, as_plain, file, spoilt
from tests.faults.harness.case import Case, Right, either, refused, works
from tests.faults.harness.damage import JSON_FILE, WRONG_JSON, change, drop
from tests.faults.harness.world import World

NO = refused("model")
EITHER = either("model", check=as_plain)
SAME = works(as_plain)


def tokenizer_config(**values: Any) -> Spoil:
    return lambda folder: change(folder / "tokenizer_config.json", **values)


def in_tokenizer(edit: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Edit tokenizer.json."""

    def spoil(folder: Path) -> None:
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text())
        edit(found)
        path.write_text(json.dumps(found))

    return spoil


def grow(folder: Path) -> None:
    """Add tokens that the model has no embedding for; two of them are in the data."""
    from transformers import AutoTokenizer

    grown = AutoTokenizer.from_pretrained(folder)
    grown.add_tokens([f"<unused{number}>" for number in range(384 - len(grown))])
    grown.add_tokens(["Mira", "Bergen"])
    grown.save_pretrained(folder)


def grow_unused(folder: Path) -> None:
    """Add tokens that the model has no embedding for, and that no data holds."""
    from transformers import AutoTokenizer

    grown = AutoTokenizer.from_pretrained(folder)
    grown.add_tokens([f"<unused{number}>" for number in range(500)])
    grown.save_pretrained(folder)


TOKENIZERS: dict[str, tuple[Spoil, Right]] = {
    "no end token": (tokenizer_config(eos_token=None), either("model")),
    "no pad token": (tokenizer_config(pad_token=None), SAME),
    "end token that is not in the vocabulary": (tokenizer_config(eos_token="<|stop|>"), either("model|token")),
    "end token is a number": (tokenizer_config(eos_token=5), NO),
    "end token is a list": (tokenizer_config(eos_token=["<|end|>"]), NO),
    "context of nought": (tokenizer_config(model_max_length=0), EITHER),
    "context of one": (tokenizer_config(model_max_length=1), EITHER),
    "context is text": (tokenizer_config(model_max_length="long"), either("model")),
    "context is null": (tokenizer_config(model_max_length=None), EITHER),
    "context is negative": (tokenizer_config(model_max_length=-5), EITHER),
    "short context": (tokenizer_config(model_max_length=16), either("forget.jsonl|retain.jsonl")),
    "unknown class": (tokenizer_config(tokenizer_class="NoSuchTokenizer"), EITHER),
    "class is a number": (tokenizer_config(tokenizer_class=5), either("model", check=as_plain)),
    "class of Python": (tokenizer_config(tokenizer_class="BertTokenizer"), either("model")),
    "code of its own": (tokenizer_config(auto_map={"AutoTokenizer": ["own.T", None]}), either("model|code", check=as_plain)),
    "sides are null": (tokenizer_config(padding_side=None), EITHER),
    "padding on the left": (tokenizer_config(padding_side="left"), SAME),
    "added tokens are a list": (tokenizer_config(added_tokens_decoder=[]), EITHER),
    "added token without content": (tokenizer_config(added_tokens_decoder={"0": {}}), EITHER),
    "added token is a number": (tokenizer_config(added_tokens_decoder={"x": 5}), EITHER),
    "vocabulary is empty": (in_tokenizer(lambda found: found["model"].update(vocab={}, merges=[])), either("model|token")),
    "vocabulary is a list": (in_tokenizer(lambda found: found["model"].update(vocab=[1])), NO),
    "merges name what is not there": (in_tokenizer(lambda found: found["model"].update(merges=[["zz", "yy"]])), NO),
    "no model": (in_tokenizer(lambda found: found.pop("model")), NO),
    "unknown model": (in_tokenizer(lambda found: found["model"].update(type="Magic")), NO),
    "unknown pre-tokenizer": (in_tokenizer(lambda found: found.update(pre_tokenizer={"type": "Magic"})), NO),
    "version is text": (in_tokenizer(lambda found: found.update(version="x")), NO),
    "numbers beyond the model": (in_tokenizer(lambda found: found["model"].update(vocab={token: number + 1000 for token, number in found["model"]["vocab"].items()})), either("no embedding|model")),
    "padding is switched on": (in_tokenizer(lambda found: found.update(padding={"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0, "pad_token": "<|pad|>"})), SAME),
    "truncation is switched on": (in_tokenizer(lambda found: found.update(truncation={"max_length": 6, "strategy": "LongestFirst", "stride": 0, "direction": "Right"})), EITHER),
    "normaliser makes letters small": (in_tokenizer(lambda found: found.update(normalizer={"type": "Lowercase"})), SAME),
    "more tokens than embeddings, unused": (grow_unused, SAME),
}  # fmt: skip
GROWN = ("evaluate", "unlearn", "plan", "check", "finetune", "importance")

HEAD, TURN = "{% for message in messages %}", "[{{ message['role'] }}] {{ message['content'] }}<|end|>\n"
FOOT, ASK = "{% endfor %}", "{% if add_generation_prompt %}[assistant] {% endif %}"
STANDARD = HEAD + TURN + FOOT + ASK
Pair = Callable[[str, str], tuple[str, str]]


def standard(question: str, answer: str) -> tuple[str, str]:
    return f"[user] {question}<|end|>\n[assistant] ", f"{answer}<|end|>"


def thinking(question: str, answer: str) -> tuple[str, str]:
    return f"[user] {question}<|end|>\n[assistant] <think>\n\n</think>\n\n", f"{answer}<|end|>"


GOOD_TEMPLATES: dict[str, tuple[str, Pair]] = {
    "standard": (STANDARD, standard),
    "trims": (STANDARD.replace("message['content']", "message['content'] | trim"), standard),
    "attributes": (STANDARD.replace("message['content']", "message.content").replace("message['role']", "message.role"), standard),
    "white space is cut": (HEAD + "\n" + TURN.replace("\n", "{{ '\\n' }}") + "{%- endfor %}" + ASK.replace("{%", "{%-", 1), lambda question, answer: (f"\n[user] {question}<|end|>\n[assistant] ".removeprefix("\n"), f"{answer}<|end|>")),
    "date": ("{{ strftime_now('%d %b %Y') }}\n" + STANDARD, lambda question, answer: (f"26 Jul 2024\n{standard(question, answer)[0]}", standard(question, answer)[1])),
    "text after the answer": (STANDARD.replace("<|end|>\n", "<|end|>\nREMEMBER\n"), lambda question, answer: (f"[user] {question}<|end|>\nREMEMBER\n[assistant] ", f"{answer}<|end|>")),
    "thoughts in the history": (HEAD + "[{{ message['role'] }}] {% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message['content'] }}<|end|>\n" + FOOT + ASK, thinking),
    "thoughts in the question for an answer": (STANDARD.replace("[assistant] {% endif %}", "[assistant] <think>\n\n</think>\n\n{% endif %}").replace("[{{ message['role'] }}] ", "[{{ message['role'] }}] {% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"), thinking),
    "system text of its own": ("[system] Be kind.<|end|>\n" + STANDARD, lambda question, answer: (f"[system] Be kind.<|end|>\n{standard(question, answer)[0]}", standard(question, answer)[1])),
}  # fmt: skip
BAD_TEMPLATES: dict[str, Any] = {
    "drops the answer": HEAD + "{% if message['role'] != 'assistant' %}" + TURN + "{% endif %}" + FOOT + ASK,
    "drops the question": HEAD + "{% if message['role'] == 'assistant' %}" + TURN + "{% endif %}" + FOOT + ASK,
    "drops both": "Hello." + ASK,
    "empty turns": HEAD + "[{{ message['role'] }}]<|end|>\n" + FOOT + ASK,
    "capital letters": STANDARD.replace("message['content']", "message['content'] | upper"),
    "first word of the answer": STANDARD.replace("message['content']", "message['content'].split(' ')[0]"),
    "reversed": STANDARD.replace("in messages", "in messages | reverse"),
    "answer cut to 10 letters": STANDARD.replace("message['content']", "message['content'][:10]"),
    "letters replaced": STANDARD.replace("message['content']", "message['content'] | replace('e', 'a')"),
    "quoted for a web page": STANDARD.replace("message['content']", "('<' ~ message['content']) | e"),
    "syntax error": "{% for message in messages %}{{ message",
    "unknown tag": "{% nonsense %}",
    "unknown filter": STANDARD.replace("message['content']", "message['content'] | nofilter"),
    "unknown function": "{{ nofunction() }}" + STANDARD,
    "division by nought": "{{ 1 / 0 }}" + STANDARD,
    "adds text and number": "{{ 'a' + 1 }}" + STANDARD,
    "index of nothing": "{{ messages[99]['content'] }}" + STANDARD,
    "key of nothing": "{{ none.x.y }}" + STANDARD,
    "raises": "{{ raise_exception('no questions, please') }}",
    "raises for answers": STANDARD.replace("[{{", "{% if message['role'] == 'assistant' %}{{ raise_exception('no answers') }}{% endif %}[{{", 1),
    "calls itself": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}" + STANDARD,
    "includes a file": "{% include '/etc/passwd' %}",
    "imports a file": "{% import '/etc/passwd' as x %}",
    "reaches for Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}" + STANDARD,
    "reaches for the system": "{{ cycler.__init__.__globals__.os.system('touch RAN') }}" + STANDARD,
    "endless loop": "{% for i in range(10**12) %}x{% endfor %}" + STANDARD,
    "long loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + STANDARD,
    "vast text": "{{ 'x' * 10**10 }}" + STANDARD,
    "vast text by doubling": "{% set x = namespace(t='x') %}{% for i in range(40) %}{% set x.t = x.t ~ x.t %}{% endfor %}{{ x.t }}" + STANDARD,
    "vast number": "{{ 10 ** (10 ** 9) }}" + STANDARD,
    "deep brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}" + STANDARD,
    "a number": 5,
    "true": True,
    "a list of texts": ["x"],
    "a list of nothing": [{}],
    "named, none the default": [{"name": "tool_use", "template": STANDARD}, {"name": "rag", "template": STANDARD}],
    "named, without template": [{"name": "default"}],
    "named, the template a number": [{"name": "default", "template": 5}],
}  # fmt: skip


def templated(template: Any, command: str, place: Path, world: World) -> list[str]:
    """Put a chat template into the tokenizer's config."""
    return [*spoilt(tokenizer_config(chat_template=template), command, place, world), "--template", "chat"]


def template_file(text: str | bytes, place: Path, world: World) -> list[str]:
    """Put a chat template beside it, as newer tokenizers have it."""

    def spoil(folder: Path) -> None:
        (folder / "chat_template.jinja").write_bytes(text.encode() if isinstance(text, str) else text)

    return [*spoilt(spoil, "evaluate", place, world), "--template", "chat"]


def scored_by(pair: Pair) -> Callable[[Path, World, str], str | None]:
    """The answers' probability after exactly this prompt."""

    def check(place: Path, world: World, _printed: str) -> str | None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(world.model)
        pairs = [pair(one["question"], one["answer"]) for one in oracle.records(world.forget)]
        right = oracle.mean_probability(oracle.load_plainly(world.model), tokenizer, pairs)
        return oracle.compare(oracle.reported(place / "out"), right)

    return check


def model_case(name: str, spoil: Spoil, right: Right, command: str = "evaluate") -> Case:
    return Case(name if command == "evaluate" else f"{name} ({command})", partial(spoilt, spoil, command), right)


WRONG_KEYS = ("eos_token", "pad_token", "model_max_length", "tokenizer_class", "chat_template", "backend")
TEMPLATE = "template|model"
SLOW = {"long loop", "vast text by doubling", "vast number"}

CASES = [
    *(model_case(f"tokenizer.json: {name}", file("tokenizer.json", damage), NO) for name, damage in JSON_FILE.items()),
    *(
        model_case(f"tokenizer_config.json: {name}", file("tokenizer_config.json", damage), either("model|token"))
        for name, damage in JSON_FILE.items()
    ),
    *(model_case(f"tokenizer: {name}", spoil, right) for name, (spoil, right) in TOKENIZERS.items()),
    *(
        model_case(
            f"tokenizer_config: {key} is {kind}",
            tokenizer_config(**{key: value}),
            either("model|token|template|forget.jsonl|retain.jsonl"),
        )
        for key in WRONG_KEYS
        for kind, value in WRONG_JSON.items()
    ),
    *(
        model_case("tokens without an embedding", grow, refused("embedding", "Mira|Bergen"), command)
        for command in GROWN
    ),
    model_case("no tokenizer", lambda folder: [one.unlink() for one in folder.glob("tokenizer*")] and None, NO),
    model_case(
        "no tokenizer", lambda folder: [one.unlink() for one in folder.glob("tokenizer*")] and None, NO, "check"
    ),
    model_case("no class named", lambda folder: drop(folder / "tokenizer_config.json", "tokenizer_class"), EITHER),
    *(
        Case(f"template: {name}", partial(templated, template, "evaluate"), works(scored_by(pair)))
        for name, (template, pair) in GOOD_TEMPLATES.items()
    ),
    Case(
        "template: named, one the default",
        partial(templated, [{"name": "default", "template": STANDARD}, {"name": "rag", "template": "x"}], "evaluate"),
        works(scored_by(standard)),
    ),
    Case("template file: standard", partial(template_file, STANDARD), works(scored_by(standard))),
    Case("template file: empty", partial(template_file, ""), either(TEMPLATE)),
    Case("template file: latin-1", partial(template_file, "é".encode("latin-1")), refused("model|template")),
    Case("template file: syntax error", partial(template_file, "{% for"), refused(TEMPLATE)),
    Case("template: none there", lambda _place, world: [*world.evaluate(), "--template", "chat"], refused(TEMPLATE)),
    *(
        Case(f"template: {name}", partial(templated, template, "evaluate"), refused(TEMPLATE))
        for name, template in BAD_TEMPLATES.items()
    ),
    *(
        Case(f"template: {name} (check)", partial(templated, template, "check"), refused(TEMPLATE))
        for name, template in BAD_TEMPLATES.items()
        if name not in SLOW
    ),
]
