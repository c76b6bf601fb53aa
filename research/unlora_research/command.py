"""`unlora study`, which the package looks up by its entry point."""

from pathlib import Path

import click

from unlora.cli.options import OUTPUT, PATH, examples
from unlora.cli.terminal import echo
from unlora_research.names import STUDIES


def _names() -> str:
    width = max(map(len, STUDIES))
    return "\b\n" + "\n".join(("Studies:", *(f"  {name:<{width}}  {question}" for name, question in STUDIES.items())))


@click.command(
    help=f"Run a study of docs/studies, or go on with it: a grid of cells, then a table and figures.\n\n{_names()}",
    epilog=examples(
        "unlora study sigma --output runs/sigma --jobs 2",
        "unlora study sigma --output runs/sigma-quick --quick",
        "unlora study sigma CONFIG.yaml --set seeds=[0] --output runs/sigma-one",
    ),
)
@click.argument("name", metavar="NAME", type=click.Choice(list(STUDIES)))
@click.argument("config", required=False, type=PATH)
@click.option("--output", type=OUTPUT, required=True, help="Folder of the study; the same command goes on with it.")
@click.option("--quick", is_flag=True, help="The same study on a tiny model, in less than two minutes.")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Cells at a time, each in a process. [default: one a GPU, or 1]"
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting of the study.")
def study(
    name: str, config: Path | None, output: Path, quick: bool, jobs: int | None, overrides: tuple[str, ...]
) -> None:
    from unlora.cli.console import ConsoleReporter
    from unlora_research.study import find_study, run_study, study_settings

    found = find_study(name)
    settings = study_settings(found, config_file=config, quick=quick, overrides=overrides)
    page = run_study(found, settings, output, jobs=jobs, reporter=ConsoleReporter())
    echo(page.read_text(encoding="utf-8"))
    echo(f"table: {output / 'table.csv'}\nfigures: {output / 'figures'}\npage: {page}")
