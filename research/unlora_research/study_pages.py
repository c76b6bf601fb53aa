"""Fill the pages of docs/studies from the records stored beside them: every measured number comes from there.

    python -m unlora_research.study_pages [NAME ...]
    python -m unlora_research.study_pages NAME --from DIR

Without NAME, all pages. --from first stores what `unlora study NAME --output DIR` left: its table and its record.
"""

import argparse
import shutil
import sys
from pathlib import Path

from unlora.artifacts import read_json, write_text
from unlora.cli.terminal import echo
from unlora.errors import InputError
from unlora_research.names import STUDIES
from unlora_research.study import draw, find_study, results
from unlora_research.tables import read_table

PAGES = Path(__file__).resolve().parents[2] / "docs" / "studies"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
STORED = ("table.csv", "study.json")


def main() -> None:
    """Parse, store, fill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("--from", dest="source", type=Path, help="folder of a finished study")
    options = parser.parse_args()
    try:
        if options.source is not None:
            if len(options.names) != 1:
                raise InputError("--from: needs the name of the one study that the folder holds.")
            store(options.names[0], options.source)
        for name in options.names or [name for name in STUDIES if (PAGES / name).is_dir()]:
            fill(name)
            echo(f"written: {PAGES / name}.md")
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def store(name: str, source: Path) -> None:
    """Copy the records of a finished study into the repository."""
    if (found := read_json(source / "study.json")["study"]) != name:
        raise InputError(f"{source}: holds the study '{found}', not '{name}'.")
    (PAGES / name).mkdir(parents=True, exist_ok=True)
    for file in STORED:
        shutil.copyfile(source / file, PAGES / name / file)


def fill(name: str) -> None:
    """Draw the figures and write the generated part of a page anew."""
    page = PAGES / f"{name}.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page}: has no lines '{BEGIN}' and '{END}' to write between.")
    draw(find_study(name), read_table(PAGES / name / "table.csv"), PAGES / name)
    write_text(page, f"{before}{BEGIN}\n\n{generated(name)}\n{END}{after}")


def generated(name: str) -> str:
    """What stands between the two marks."""
    study, table = find_study(name), read_table(PAGES / name / "table.csv")
    figures = [f"{name}/{figure}.png" for figure in study.figures(table)]
    return results(study, table, read_json(PAGES / name / "study.json"), figures)


if __name__ == "__main__":
    main()
