"""Sixteen heads in populations against the same sixteen in turn, on one set of features.

    python benchmarks/population.py [--n-heads 16] [--n-rounds 3]

The heads are drawn from the search space of params.yaml and trained together as `make tune` does, on its backend. "In
turn" is what stage train does for each of them, on Keras' default backend. Prints the ratio of trials an hour: of the
first call, which compiles its programs, and of later ones, which find most of them; and the floor that arithmetic and
memory traffic set.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from statistics import median

import keras
import numpy as np
import optuna

from deepsky.experiment.experiment import read_experiment
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples
from deepsky.training.fit import Phase, fit_phases
from deepsky.training.population import HeadTrainer
from deepsky.training.recipe import Recipe
from deepsky.training.trials import head_of
from deepsky.tuning.space import suggest

N_FEATURES, N_CLASSES, N_TRAIN, N_VAL = 1024, 3, 640, 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-heads", type=int, default=16)
    parser.add_argument("--n-rounds", type=int, default=4, help="sets of heads; the first finds nothing compiled")
    parser.add_argument("--side", choices=["together", "in turn"], help="only this one, in this process")
    options = parser.parse_args()
    rounds = draw(options.n_heads, options.n_rounds)
    if options.side:
        print_times(options.side, rounds)
        return
    together_s = times_of("together", read_experiment().tune.backend, options)
    in_turn_s = times_of("in turn", "tensorflow", options)
    for heads, a, b in zip(rounds, together_s, in_turn_s, strict=True):
        floor = f"{floor_gflop(heads):.0f} GFLOP and {floor_gb(heads):.1f} GB"
        print(f"{options.n_heads} heads, 10 epochs: together {a:.1f} s, in turn {b:.1f} s; floor {floor}")
    print(f"ratio in turn / together, first: {in_turn_s[0] / together_s[0]:.2f} (target >= 1.0 on 2 cores)")
    later = median(b / a for a, b in zip(together_s[1:], in_turn_s[1:], strict=True))
    print(f"ratio in turn / together, later (median): {later:.2f} (target >= 1.0 on 2 cores, >= 20 on a GPU)")


def times_of(side: str, backend: str, options: argparse.Namespace) -> list[float]:
    """Time one side in a process of its own: a process has one backend."""
    numbers = ["--n-heads", str(options.n_heads), "--n-rounds", str(options.n_rounds)]
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, *numbers], env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    print(done.stdout.splitlines()[0])
    return [float(line) for line in done.stdout.splitlines()[1:]]


def print_times(side: str, rounds: list[list[Recipe]]) -> None:
    examples, trainer = make_examples(), HeadTrainer()
    print(f"{side}: {keras.backend.backend()} on {keras.distribution.list_devices()[0]}")
    fit_alone(replace(rounds[0][0], epochs=1), examples)  # what is slow once in a process
    for heads in rounds:
        started = time.perf_counter()
        if side == "together":
            trainer.train(heads, examples, lambda number, score: True)
        else:
            for head in heads:
                fit_alone(head, examples)
        print(time.perf_counter() - started, flush=True)


def make_examples() -> Examples:
    rng = np.random.default_rng(0)
    n_rows = N_TRAIN + N_VAL
    label = rng.integers(0, N_CLASSES, n_rows)
    inputs = rng.random((n_rows, N_FEATURES), dtype=np.float32)
    inputs[:, :N_CLASSES] += np.eye(N_CLASSES, dtype=np.float32)[label]
    split = np.where(np.arange(n_rows) < N_TRAIN, "train", "val")
    return Examples(inputs, np.arange(n_rows), np.eye(N_CLASSES, dtype=np.float32)[label], split)


def draw(n_heads: int, n_rounds: int) -> list[list[Recipe]]:
    """Draw random candidates of the space in params.yaml, as a search begins."""
    experiment = read_experiment()
    params, base = experiment.tune, experiment.run("sdss_cutouts-mobilenet")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    params = replace(params, epochs=10, patience=None)
    return [[suggest(study.ask(), params, base) for _ in range(n_heads)] for _ in range(n_rounds)]


def fit_alone(recipe: Recipe, examples: Examples) -> None:
    head = head_of(recipe, N_FEATURES, N_CLASSES)
    fit_phases(head, head, examples, [Phase(recipe)], lambda one, first: TrainBatches(examples, one, first))


def n_weights(recipe: Recipe) -> int:
    sides = [N_FEATURES, *recipe.hidden_units, N_CLASSES]
    return sum(a * b for a, b in pairwise(sides))


def floor_gflop(heads: list[Recipe]) -> float:
    """Count the multiplications and additions of the kernels: forward, and twice that backward."""
    return sum(6 * n_weights(head) * N_TRAIN * head.epochs for head in heads) / 1e9


def floor_gb(heads: list[Recipe]) -> float:
    """Count each step's reading and writing of kernels and moments, and the reading of the gradients."""
    return sum(7 * 4 * n_weights(head) * N_TRAIN / head.batch_size * head.epochs for head in heads) / 1e9


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
