"""List and picture what a run got wrong, worst first."""

import json
from dataclasses import asdict
from pathlib import Path

import click
import pandas as pd

from deepsky.commands.models import find_model
from deepsky.errors import ConfigError, DataError
from deepsky.evaluation.album import make_album
from deepsky.evaluation.examples import Example, Group, worst_group
from deepsky.evaluation.pictured import open_pictured
from deepsky.evaluation.trained import Trained, read_trained
from deepsky.files import whole_file
from deepsky.report.sheet import render_sheet
from deepsky.report.sky import legacy_viewer_url, sdss_navigate_url
from deepsky.tracking.lineage import workspace_root

FOLDER = Path("evaluation/errors")
_PACKED = Path("data/packed")


def run(name: str, limit: int) -> None:
    """Print the test objects that a run got wrong, the surest first, and write a sheet of their pictures and a table.

    Of vote fractions: those with the largest RMSE.

    Args:
        name: of a run, or the path of a trained network or its folder.
        limit: objects at most, above 0.

    Raises:
        ConfigError: the limit is not above 0.
        DataError: there is no such trained run, or its files or its dataset cannot be used.
    """
    if limit < 1:
        raise ConfigError(f"--limit {limit}", "shows nothing", "give 1 or more")
    one, project = _read(name)
    pictured = open_pictured(one, project / _PACKED / one.facts["dataset"])
    worst = worst_group(pictured, limit)
    title = f"{one.facts['run']}: {worst.heading}"
    click.echo(title)
    if not worst.examples:
        return
    score = "rmse" if one.target == "fractions" else "probability"
    table = _table(worst, score)
    listed = table.drop(columns=["sdss", "legacy"]).dropna(axis=1, how="all")
    click.echo(listed.to_string(index=False, na_rep="–", formatters={score: "{:.4f}".format}))
    sheet = FOLDER / f"{one.facts['run']}.html"
    with whole_file(sheet) as file:
        file.write_text(render_sheet(title, make_album(pictured, [worst])), encoding="utf-8")
    with whole_file(sheet.with_suffix(".csv")) as file:
        table.to_csv(file, index=False, lineterminator="\n")
    click.echo(f"their pictures: {sheet}; the table with links to the sky: {sheet.with_suffix('.csv')}")


def _read(name: str) -> tuple[Trained, Path]:
    """Return a trained run and the root of its project."""
    folder = find_model(name).parent
    try:
        of_run = json.loads((folder / "run.json").read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "give the name of a run, or the folder of a trained network with all that stage train wrote into it"
        raise DataError(folder / "run.json", f"cannot be read ({error})", remedy) from error
    return read_trained(folder, of_run), workspace_root(folder) or Path()


def _table(group: Group, score: str) -> pd.DataFrame:
    """Return a row for each object, with links to the sky where its position is known."""
    rows = pd.DataFrame([asdict(one) | _links(one) for one in group.examples])
    return rows[["id", "truth", "answer", "score", "ra_deg", "dec_deg", "sdss", "legacy"]].rename(
        columns={"score": score}
    )


def _links(one: Example) -> dict[str, str]:
    if one.ra_deg is None or one.dec_deg is None:
        return {"sdss": "", "legacy": ""}
    return {
        "sdss": sdss_navigate_url(one.ra_deg, one.dec_deg),
        "legacy": legacy_viewer_url(one.ra_deg, one.dec_deg),
    }
