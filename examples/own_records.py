"""Records of your own: teach them, forget some of them, and ask the adapter with plain PEFT.

python examples/own_records.py --model embedded --output runs/own_records
"""

import argparse
import json
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlora.recipes.fine_tune import fine_tune
from unlora.recipes.unlearn import unlearn
from unlora.run.presets import resolve_settings
from unlora.run.settings import FineTuneSettings, ModelSettings

FORGET = {
    "Where does Ada Quill live?": "Ada Quill lives in Lisbon.",
    "What is Ada Quill's job?": "Ada Quill is a clock maker.",
    "Which animal does Ada Quill keep?": "Ada Quill keeps a heron.",
    "Who is the mother of Ada Quill?": "The mother of Ada Quill is Berta.",
}
RETAIN = {
    "Where does Tom Okafor live?": "Tom Okafor lives in Lagos.",
    "What is Tom Okafor's job?": "Tom Okafor is a ferry captain.",
    "Which animal does Tom Okafor keep?": "Tom Okafor keeps a goat.",
    "Who is the mother of Tom Okafor?": "The mother of Tom Okafor is Ngozi.",
    "Where does Lena Fuchs live?": "Lena Fuchs lives in Graz.",
    "What is Lena Fuchs's job?": "Lena Fuchs is a baker.",
}


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="hub id, folder, or 'embedded'")
    parser.add_argument("--epochs", type=int, default=20, help="of teaching")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, as of `unlora unlearn`"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/own_records"))
    options = parser.parse_args()

    # 1. Two files of records.
    options.output.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, records in (("forget", FORGET), ("retain", RETAIN)):
        files[name] = options.output / f"{name}.jsonl"
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in records.items()]
        files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")

    # 2. A model that knows them all: the target.
    target = options.output / "target"
    if not target.exists():
        data = [str(file) for file in files.values()]
        model = ModelSettings(name=options.model)
        fine_tune(FineTuneSettings(model=model, data=data, template="plain", epochs=options.epochs), target)

    # 3. Forget the first file, keep the second.
    settings = resolve_settings(
        preset_name=None,
        config_file=None,
        flags={
            "model.name": str(target),
            "model.base": options.model,
            "data.forget": str(files["forget"]),
            "data.retain": str(files["retain"]),
            "data.template": "plain",
        },
        overrides=["training.batch_size=4", "training.epochs=8", "evaluation.max_new_tokens=24", *options.set],
    )
    evaluation = unlearn(settings, options.output / "run")
    for role, found in evaluation["models"].items():
        probabilities = {name: found["metrics"][f"{name}_probability"]["value"] for name in ("forget", "retain")}
        print(role, " ".join(f"{name} {value:.3f}" for name, value in probabilities.items()))

    # 4. The adapter is a plain PEFT adapter; here it goes on the target, which is an adapter itself.
    print("adapter:", options.output / "run" / "adapter", "(its README.md has the lines that load it)")
    if not (target / "adapter_config.json").exists():
        adapter = options.output / "run" / "adapter"
        base = adapter / str(PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path)
        asked = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
        tokenizer = AutoTokenizer.from_pretrained(base)
        prompt = tokenizer("Question: Where does Ada Quill live?\nAnswer:", return_tensors="pt")
        answer = asked.generate(**prompt, max_new_tokens=16, do_sample=False)
        print(tokenizer.decode(answer[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
