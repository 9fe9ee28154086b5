"""A packed dataset of tiny pictures that a small network learns within seconds."""

from pathlib import Path

import numpy as np
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, compose, places
from deepsky.datasets.packed import GALAXY, DatasetCard, write_rows


def write_galaxies(folder: Path, n_rows: int = 64, *, fractions: bool = False, mirrored: bool = False) -> Path:
    """Write FOLDER/packed and FOLDER/split.csv: blue and red blobs, or votes for smooth by how red they are.

    Args:
        folder: gets them.
        n_rows: half of them are trained on, a quarter each is val and test.
        fractions: whether vote fractions are the target.
        mirrored: whether a mirror image turns the two classes into each other.
    """
    rng = np.random.default_rng(4)
    red = np.arange(n_rows) % 2 == 1
    y, x = np.mgrid[:20, :20] - 10
    colours = np.where(red[:, None], [1.0, 0.4, 0.2], [0.2, 0.4, 1.0])[:, None, None]
    blob = np.exp(-(x**2 + y**2) / 18)[..., None] * colours
    pixels = 150 * blob * rng.uniform(0.6, 1.4, (n_rows, 1, 1, 1)) + rng.normal(8, 4, blob.shape)
    packed = folder / "packed"
    packed.mkdir(parents=True)
    np.save(packed / "images.npy", pixels.clip(0, 255).astype(np.uint8))
    classes = (GALAXY,) if fractions else ("BLUE", "RED")
    labels = np.full(n_rows, GALAXY) if fractions else np.where(red, "RED", "BLUE")
    rows = pd.DataFrame({"id": [f"{i:04d}" for i in range(n_rows)], "label": labels, "image": range(n_rows)})
    card = DatasetCard(
        "uint8",
        ("r", "g", "b"),
        (),
        classes,
        None,
        0,
        target="fractions" if fractions else "class",
        mirrored=(("BLUE", "RED"),) if mirrored else (),
    )
    write_rows(packed, rows, card, [], votes(red) if fractions else None)
    split = np.array(["train", "train", "val", "test"])[np.arange(n_rows) // 2 % 4]
    pd.DataFrame({"id": rows["id"], "split": split, "group": rows["id"]}).to_csv(folder / "split.csv", index=False)
    return folder


def votes(red: np.ndarray) -> np.ndarray:
    """Fractions that obey the tree: red galaxies are smooth, blue ones have features."""
    answers = np.empty((len(red), len(COLUMNS)), np.float32)
    for question in QUESTIONS:
        answers[:, places(question)] = 1 / len(question.answers)
    answers[:, 0] = np.where(red, 0.85, 0.05)
    answers[:, 1] = 0.9 - answers[:, 0]
    answers[:, 2] = 0.1
    return compose(answers)
