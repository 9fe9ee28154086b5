"""Write what a search found into params.yaml, where `dvc repro` trains it beside the reference."""

import json
from dataclasses import asdict

import click

from deepsky.config import PARAMS, read_section
from deepsky.files import whole_file
from deepsky.training.fit import TrainParams
from deepsky.tuning.adopt import adopt, diff
from deepsky.tuning.database import study_errors
from deepsky.tuning.params import TuneParams
from deepsky.tuning.study import load_study
from deepsky.tuning.winner import winner_of


def run(study: str, trial: int | None, storage: str | None) -> None:
    """Enter a trial into section ``tuned`` of params.yaml, and print what changed and what to run next.

    Args:
        study: its name.
        trial: number of a complete trial; None takes the one with the best first objective.
        storage: URL of the database; None takes tune.storage.

    Raises:
        StudyError: the database cannot be used, or has no such study or complete trial.
        ConfigError: the study's dataset or network is no longer in params.yaml, or no entry fits into section tuned.
    """
    tune = read_section("tune", TuneParams)
    url = storage or tune.storage
    opened = load_study(study, url)
    with study_errors(url):
        winner = winner_of(opened, trial, tune)
    part, section = ("heads", "train") if isinstance(winner.fit, TrainParams) else ("scratch", "scratch")
    adopted = winner.adopted
    entry = json.loads(json.dumps(asdict(adopted) | {section: asdict(winner.fit)}))
    before = PARAMS.read_bytes().decode()  # as it is, whatever its line ends
    after = adopt(before, part, adopted.key, entry)
    values = ", ".join(f"{name} {value:.4g}" for name, value in winner.values.items())
    click.echo(f"study {study}, trial {adopted.trial}: {values}")
    if after == before:
        click.echo(f"{PARAMS} has it already")
        return
    with whole_file(PARAMS) as path:
        path.write_bytes(after.encode())
    click.echo(diff(before, after))
    click.echo(f"make repro trains it as {adopted.label} on {adopted.dataset}, beside {adopted.network}")
