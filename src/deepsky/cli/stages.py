"""One verb per DVC stage, in the order of dvc.yaml. They read their settings from the plan, plan.yaml."""

from pathlib import Path

import click

from deepsky.cli.group import PATH, cli, path_option
from deepsky.config import PARAMS, build
from deepsky.files import leave_empty
from deepsky.lean_keras import compute_deterministically


@cli.command()
@click.option("--out", default="plan.yaml", show_default=True, type=PATH, help="plan to write")
def plan(out: Path) -> None:
    """Stage plan: what each stage runs with, and by which code."""
    from deepsky.stages import plan as stage

    stage.run(params=PARAMS, out=out)


@cli.command()
@path_option("query", "folder of deepsky query's answer (survey: sdss), or of list.tsv (survey: list)")
@path_option("out", "catalogue CSV to write")
def catalogue(query: Path, out: Path) -> None:
    """Stage catalogue: which objects."""
    from deepsky.experiment.plan import read_plan
    from deepsky.simulation.params import CatalogueParams
    from deepsky.stages import catalogue as stage

    plan = read_plan()
    if not plan.settings("catalogue")["needed"]:
        leave_empty(out)
        return
    settings = plan.settings("catalogue")
    classes = tuple(settings.get("classes", ()))  # of a list
    stage.run(plan.params(CatalogueParams, "catalogue"), settings["release"], query=query, out=out, classes=classes)


@cli.command()
@click.option("--catalogue", default="data/catalogue.csv", show_default=True, type=PATH, help="catalogue CSV")
@click.option("--out", default="data/raw", show_default=True, type=PATH, help="folder of the raw files")
@click.option("--retry-failed", is_flag=True, help="only the files that failed last time (OUT/failures.csv)")
def fetch(catalogue: Path, out: Path, retry_failed: bool) -> None:
    """Stage fetch: the raw frames and cutouts of the catalogue's objects."""
    from deepsky.archives.params import ArchiveParams
    from deepsky.experiment.experiment import read_experiment
    from deepsky.experiment.plan import read_plan
    from deepsky.simulation.params import CatalogueParams
    from deepsky.stages import fetch as stage

    settings = read_plan().settings("fetch")
    if not settings["needed"]:
        leave_empty(*(out / name for name in ("frames", "sdss_jpg", "stsci_jpg", "stsci_fits", "manifest.csv")))
        return
    stage.run(
        build(settings["catalogue"], CatalogueParams, "plan.yaml: fetch.catalogue"),
        build(settings["archive"], ArchiveParams, "plan.yaml: fetch.archive"),
        read_experiment().download,  # changes no result, so it is not in the plan
        settings["on_bad_file"],
        catalogue=catalogue,
        out=out,
        retry_failed=retry_failed,
    )


@cli.command()
@path_option("out", "folder that gets galaxy_zoo, galaxy_zoo1 and Galaxy10_DECals.h5")
def simulate(out: Path) -> None:
    """Stage simulate: stand-ins for the published datasets, drawn from a seed."""
    from deepsky.experiment.plan import read_plan
    from deepsky.simulation.params import SimulateParams
    from deepsky.stages import simulate as stage

    plan = read_plan()
    if not plan.settings("simulate")["needed"]:
        leave_empty(out / "galaxy_zoo", out / "galaxy_zoo1", out / "Galaxy10_DECals.h5")
        return
    stage.run(plan.params(SimulateParams, "simulate"), out=out)


@cli.command()
@click.argument("name")
@path_option("png", "folder of the pictures to write")
@path_option("packed", "folder that gets NAME_frames, NAME_rgb and NAME_cutouts")
def render(name: str, png: Path, packed: Path) -> None:
    """Stage render: plots, composites and cutouts of the frames NAME."""
    from deepsky.experiment.plan import read_plan
    from deepsky.formats.params import FramesParams
    from deepsky.stages import render as stage

    plan = read_plan()
    on_bad_file = plan.settings("render", name)["on_bad_file"]
    stage.run(name, plan.params(FramesParams, "render", name), on_bad_file, png=png, packed=packed)


@cli.command()
@click.argument("name")
@path_option("out", "packed dataset to write")
def pack(name: str, out: Path) -> None:
    """Stage pack: the pictures NAME and their labels as one packed dataset."""
    from deepsky.experiment.plan import read_plan
    from deepsky.formats.params import PicturesParams
    from deepsky.stages import pack as stage

    plan = read_plan()
    on_bad_file = plan.settings("pack", name)["on_bad_file"]
    stage.run(name, plan.params(PicturesParams, "pack", name), on_bad_file, out=out)


@cli.command()
@click.argument("dataset")
@path_option("packed", "packed dataset")
@path_option("out", "split CSV to write")
def split(dataset: str, packed: Path, out: Path) -> None:
    """Stage split: train, validation and test rows of DATASET by sky group."""
    from deepsky.datasets.params import SplitParams
    from deepsky.experiment.plan import read_plan
    from deepsky.stages import split as stage

    plan = read_plan()
    group_by = plan.settings("split", dataset)["group_by"]
    stage.run(group_by, plan.params(SplitParams, "split", dataset), packed=packed, out=out)


@cli.command()
@path_option("out", "folder of the weights to write")
def weights(out: Path) -> None:
    """Stage weights: the pretrained (or random) weights of every network."""
    from deepsky.experiment.plan import read_plan
    from deepsky.networks.params import WeightsParams
    from deepsky.stages import weights as stage

    plan = read_plan()
    stage.run(plan.settings("weights")["networks"], plan.params(WeightsParams, "weights"), out=out)


@cli.command()
@click.argument("dataset")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("weights", "folder of all weights")
@path_option("out", "folder of DATASET's features to write")
def features(dataset: str, **paths: Path) -> None:
    """Stage features: what each frozen network sees of DATASET."""
    from deepsky.experiment.experiment import read_experiment
    from deepsky.experiment.plan import read_plan
    from deepsky.stages import features as stage

    settings = read_plan().settings("features", dataset)["networks"]
    networks = build(settings, dict[str, stage.NetworkFeatures], f"plan.yaml: features.{dataset}")
    compute_deterministically(any(one.deterministic for one in networks.values()))
    stage.run(networks, read_experiment().features.batch_size, **paths)  # it changes speed only


@cli.command()
@click.argument("run")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("features", "folder of the network's features of the dataset")
@path_option("weights", "folder of the network's weights")
@path_option("out", "folder of the trained network to write")
def train(run: str, **paths: Path) -> None:
    """Stage train: the network of RUN."""
    from deepsky.experiment.experiment import read_experiment
    from deepsky.experiment.plan import read_plan
    from deepsky.training.recipe import Recipe

    plan = read_plan()
    recipe = plan.params(Recipe, "train", run)
    split_params = {key: value for key, value in plan.settings("split", recipe.dataset).items() if key != "code"}
    compute_deterministically(plan.settings("train", run).get("deterministic", False))
    from deepsky.stages import train as stage  # takes seconds: what is wrong with the plan was told before

    stage.run(run, recipe, read_experiment().tracking, split_params, **paths)


@cli.command()
@path_option("packed", "folder of the packed datasets")
@path_option("features", "folder of all features")
@path_option("trained", "folder of the trained networks")
@path_option("out", "folder of the evaluations to write")
@path_option("metrics", "folder of the metrics to write")
@path_option("plots", "folder of the plots' tables to write")
def evaluate(metrics: Path, plots: Path, **places: Path) -> None:
    """Stage evaluate: test figures and pictures of every run, into files and into MLflow."""
    from deepsky.commands.planned import planned_runs
    from deepsky.evaluation.params import EvaluateParams
    from deepsky.evaluation.planned import Places
    from deepsky.experiment.plan import read_plan
    from deepsky.stages import evaluate as stage

    plan = read_plan()
    params, settings = plan.params(EvaluateParams, "evaluate"), plan.settings("evaluate")
    outs = {"metrics": metrics, "plots": plots}
    stage.run(planned_runs(plan), params, settings["experiment"], Places(**places), code=settings["code"], **outs)


@cli.command()
@path_option("evaluation", "folder of the evaluations")
@path_option("out", "folder of the report to write")
def report(evaluation: Path, out: Path) -> None:
    """Stage report: one page that compares every run."""
    from deepsky.experiment.plan import read_plan
    from deepsky.stages import report as stage

    settings = read_plan().settings("report")
    stage.run(settings["experiment"], evaluation=evaluation, out=out, paper=settings["paper"])
