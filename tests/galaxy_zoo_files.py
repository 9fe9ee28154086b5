"""Small folders in the layouts of Galaxy Zoo."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, compose, places

# What the answers of one galaxy of each clean class are; the others share what is left.
LEANS = {
    "round": {"Class1.1": 0.9, "Class7.1": 0.9},
    "in-between": {"Class1.1": 0.9, "Class7.2": 0.9},
    "cigar": {"Class1.1": 0.9, "Class7.3": 0.9},
    "edge-on": {"Class1.2": 0.9, "Class2.1": 0.9},
    "spiral": {"Class1.2": 0.95, "Class2.2": 0.95, "Class4.1": 0.9},
    "none": {"Class1.1": 0.45, "Class1.2": 0.45},
}


def fractions_of(classes):
    """37 fractions of one galaxy of each class, float64, rounded to 6 decimals as the challenge's."""
    rng = np.random.default_rng(5)
    answers = rng.uniform(0.05, 1, (len(classes), len(COLUMNS)))
    for question in QUESTIONS:
        own = answers[:, places(question)]
        for row, name in enumerate(classes):
            leaning = [LEANS[name].get(column) for column in question.columns]
            free = np.array([value is None for value in leaning])
            left = 1 - sum(value for value in leaning if value is not None)
            own[row, ~free] = [value for value in leaning if value is not None]
            own[row, free] *= left / own[row, free].sum()
    return np.round(compose(answers), 6)


def solutions_of(ids, classes):
    table = pd.DataFrame(fractions_of(classes), columns=list(COLUMNS))
    table.insert(0, "GalaxyID", ids)
    return table


def write_jpeg(path, level, side_px=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((side_px, side_px, 3), level, np.uint8))


def write_challenge(folder: Path, ids, classes, *, zipped=False):
    """The challenge's folder: the level of galaxy N's picture is 10 N."""
    folder.mkdir(parents=True, exist_ok=True)
    solutions_of(ids, classes).to_csv(folder / "training_solutions_rev1.csv", index=False)
    for number, identity in enumerate(ids):
        write_jpeg(folder / f"images_training_rev1/{identity}.jpg", 10 * number)
    if zipped:
        zip_images(folder)
    return folder


def zip_images(folder):
    images = folder / "images_training_rev1"
    with zipfile.ZipFile(folder / "images_training_rev1.zip", "w") as archive:
        for path in sorted(images.iterdir()):
            archive.write(path, f"images_training_rev1/{path.name}")
            path.unlink()
    images.rmdir()
