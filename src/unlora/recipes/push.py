"""Send what a run made to the hub: nothing leaves the machine that was not listed first."""

import glob
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from unlora.cards.leaving import Leaving, files_of, refuse_texts, refuse_whose_machine, unfindable_base
from unlora.config import read_yaml
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.errors import InputError, UnloraError, text_in_words
from unlora.models.quiet import quiet
from unlora.run.finished import refuse_changed_adapter
from unlora.run.reporter import SILENT, Reporter


class Parcel(NamedTuple):
    """What is to leave."""

    folder: Path
    files: list[Leaving]
    repository: str


def pack(run: Path, repository: str, *, with_texts: bool = False, reporter: Reporter = SILENT) -> Parcel:
    """Find out what would leave the machine; nothing does.

    Args:
        run: a finished run, of which its adapter is sent; or a folder that `unlora export` wrote.
        repository: ORGANISATION/NAME on the hub.
        with_texts: send the whole folder as it is, records, answers and settings of a run included.
        reporter: told what could not be looked for, and of an adapter whose base nobody will find.

    Raises:
        InputError: no such folder, an adapter that was changed, a card that the hub would not take, a file that may
            hold texts of records, or one that says whose machine it was made on.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"REPO '{repository}': not like ORGANISATION/NAME ({error}).") from None
    if "/" not in repository:
        raise InputError(f"REPO '{repository}': says not whose it will be; write ORGANISATION/NAME.")
    is_run = (run / "config.yaml").is_file()
    if is_run:
        if not (run / "adapter").is_dir():
            raise InputError(f"{run}: holds no adapter yet; finish it with the command that started it.")
        refuse_changed_adapter(run)
    folder = run / "adapter" if is_run and not with_texts else run
    files = files_of(folder)
    if not with_texts:
        refuse_texts(folder, files, _forget_set(run, reporter))
        refuse_whose_machine(folder, files)
    _refuse_card(folder)
    unfindable = unfindable_base(folder, files)
    if unfindable is not None:
        reporter.say(f"Warning: {unfindable}")
    return Parcel(folder, files, repository)


def send(parcel: Parcel, *, private: bool = False) -> str:
    """Make the repository where there is none, and send the files of a parcel in one commit.

    Returns:
        The address of the commit.

    Raises:
        UnloraError: the hub, or the way to it, refused; or `private` is asked of a repository that is public already.
    """
    try:
        with quiet():
            api = HfApi()
            # Of one that is there, the visibility stays what it is.
            place = api.create_repo(parcel.repository, exist_ok=True, private=True if private else None)
            if private and not api.model_info(place.repo_id).private:
                raise UnloraError(
                    f"{parcel.repository}: is there already and public, which --private does not change, and nothing "
                    "was sent; make it private on the hub, choose another name, or leave --private out."
                )
            done = api.upload_folder(
                repo_id=place.repo_id,
                folder_path=parcel.folder,
                allow_patterns=[glob.escape(file.name) for file in parcel.files],
                commit_message="Upload with unlora",
            )
    except UnloraError:
        raise
    except Exception as error:  # of httpx, of the hub's client, or of whatever it uploads with
        advice = "; log in with `hf auth login`, or set HF_TOKEN" if _is_unknown(error) else ""
        raise UnloraError(f"{parcel.repository}: not sent ({text_in_words(error)[:300]}){advice}.") from None
    return done.commit_url


def _is_unknown(error: Exception) -> bool:
    """Whether the hub does not know who asks."""
    return getattr(getattr(error, "response", None), "status_code", None) in (401, 403)


def _forget_set(run: Path, reporter: Reporter) -> ExampleSet | None:
    """The records that the folder's run was to forget, where its settings and they are still here."""
    config = next(
        (place / "config.yaml" for place in (run, *run.parents[:2]) if (place / "config.yaml").is_file()), None
    )
    if config is None:
        reporter.say(f"No settings of a run stand beside {run}; that it holds no record to be forgotten is not checked")
        return None
    try:
        return load_examples(str(read_yaml(config)["data"]["forget"]))
    except (InputError, KeyError, TypeError):
        reporter.say(
            f"The forget set that {config} names is not here; that what is sent holds no record of it is not checked"
        )
        return None


def _refuse_card(folder: Path) -> None:
    card = folder / "README.md"
    if not card.is_file():
        raise InputError(f"{folder}: has no README.md; write the folder with unlora export, or give it a model card.")
    try:
        ModelCard.load(card)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{card}: no valid model card ({text_in_words(error)[:200]}).") from None
