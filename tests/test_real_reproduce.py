"""A run that learned from real galaxies is made again, to the byte."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests.workspace import make_workspace

N_PER_CLASS = 24


def test_a_run_of_real_galaxies_comes_out_the_same(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    source, pictures = real_data("galaxy_zoo1"), tmp_path / "pictures"
    table = pd.read_csv(source / "labels.csv", dtype=str)
    few = table[table["name"].isin(["elliptical", "spiral_cw"])].groupby("name").head(N_PER_CLASS)
    assert len(few) == 2 * N_PER_CLASS
    pictures.mkdir()
    few.to_csv(pictures / "labels.csv", index=False)
    for name in few["OBJID"]:
        shutil.copy(next((source / "images").glob(f"{name}.*")), pictures)
    workspace = make_workspace(tmp_path)
    workspace.run(
        "deepsky", "add", "images", "real", str(pictures), str(pictures / "labels.csv"), "--id-column", "OBJID",
        "--label-column", "name", "--only",
    )  # fmt: skip
    workspace.edit_params(compare__networks={"cnn_small": None}, networks__cnn_small={"input_size_px": 32, "epochs": 2})
    workspace.run("dvc", "repro", "train@real-cnn_small")
    said = workspace.run("deepsky", "reproduce", "real-cnn_small").stdout
    assert "\nsame: model.h5, predictions.csv and run.json are the same bytes\n" in said
