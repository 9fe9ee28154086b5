"""A small copy of the project in a folder of its own, run as a user runs it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from deepsky.config import read_yaml
from deepsky.experiment import edit

ROOT = Path(__file__).resolve().parents[1]

# Refuses, and writes down, every connection that leaves this machine: Python reads sitecustomize at start-up.
SOCKET_GUARD = """
import ipaddress, os, sys

def guard(event, args):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = args[0] if event == "socket.getaddrinfo" else args[1][0] if isinstance(args[1], tuple) else None
    if host in (None, "", "localhost", b"localhost"):
        return
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        with open(os.environ["DEEPSKY_SOCKET_LOG"], "a") as log:
            log.write(f"{event} {args!r} {sys.argv}\\n")
        raise OSError(f"the test refuses {event} {args!r}")

sys.addaudithook(guard)

# Which of our modules each verb imported, for the test that the plan's fingerprints know them.
def note_modules():
    ours = sorted(name for name in sys.modules if name.startswith("deepsky"))
    if len(sys.argv) > 1 and sys.argv[0].endswith("deepsky"):
        try:
            with open(os.environ["DEEPSKY_SOCKET_LOG"].replace("sockets", "modules"), "a") as log:
                log.write(" ".join([sys.argv[1], ",".join(sys.argv[2:3]), *ours]) + "\\n")
        except OSError:
            pass  # a test that lets no file grow

import atexit
atexit.register(note_modules)
"""


@dataclass(frozen=True)
class Workspace:
    """A copy of the tracked files with its own git and DVC, and the environment to run it in."""

    root: Path
    env: dict[str, str]

    def run(self, *command: str, check: bool = True, **extra_env: str) -> subprocess.CompletedProcess[str]:
        """Run one command in the copy; a failure shows its output."""
        done = subprocess.run(
            command, cwd=self.root, env=self.env | extra_env, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def edit_params(self, **changes: Any) -> None:
        """Set keys of params.yaml, dotted with two underscores; comments stay."""
        yaml = YAML()
        yaml.width = 4096
        yaml.representer.add_representer(
            type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
        )
        document = yaml.load(self.root / "params.yaml")
        for dotted, value in changes.items():
            *parents, key = dotted.split("__")
            section = document
            for parent in parents:
                section = section[parent]
            section[key] = value
        yaml.dump(document, self.root / "params.yaml")

    def drop(self, *keys: str) -> None:
        """Take one entry of params.yaml away."""
        document = edit.load(self.root / "params.yaml")
        edit.remove(document, keys)
        edit.save(document, self.root / "params.yaml")


def make_workspace(folder: Path) -> Workspace:
    """Copy the project's files (tracked, and new ones that git does not ignore) and initialise git there."""
    root, guard = folder / "project", folder / "guard"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(SOCKET_GUARD)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DEEPSKY_", "KERAS_", "DVC_"))}
    env |= {
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        "PYTHONPATH": f"{guard}:{root / 'src'}",
        "DEEPSKY_SOCKET_LOG": str(folder / "sockets.log"),
        "KERAS_HOME": str(folder / "keras"),
    }
    workspace = Workspace(root, env)
    workspace.run("git", "init", "--quiet")
    workspace.run("git", "add", ".")
    workspace.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "copy")
    return workspace


def shrink(workspace: Workspace) -> None:
    """Make the pipeline small: few fields, tiny inputs, two networks, two datasets and a single run of each kind."""
    zoo = {"format": "galaxy_zoo_challenge", "source": "data/raw/simulated/galaxy_zoo", "size_px": 32, "crop_px": 227}
    zoo1 = {"format": "galaxy_zoo1", "source": "data/raw/simulated/galaxy_zoo1", "size_px": 32, "crop_px": 227}
    pictures = read_yaml(ROOT / "params.yaml")["datasets"]["pictures"]
    tiny = {"dataset": "galaxy_zoo1", "input_size_px": 32, "epochs": 1}
    workspace.edit_params(
        catalogue__n_fields=8,
        catalogue__n_per_class_per_field=4,
        datasets__pictures={
            "sdss_jpg": pictures["sdss_jpg"],
            "galaxy_zoo1": zoo1,
            "galaxy_zoo": {**zoo, "target": "fractions"},
        },
        compare={
            "datasets": {"sdss_frames": None, "sdss_cutouts": None},
            "networks": {"mobilenet": None, "cnn_small": None},
        },
        train__input_size_px=32,
        train__epochs=2,
        networks__cnn_small={"input_size_px": 32, "epochs": 1},
        simulate={"seed": 11, "n_galaxy_zoo": 30, "n_galaxy_zoo1": 72, "n_galaxy10": 120},
    )
    workspace.edit_params(
        **{f"runs__zoo_frozen__{key}": value for key, value in tiny.items()},
        **{f"runs__zoo1_fine_tune__{key}": value for key, value in (tiny | {"head_epochs": 0}).items()},
        runs__zoo_fractions__input_size_px=46,
        runs__zoo_fractions__epochs=1,
    )
    workspace.drop("runs", "galaxy10_balanced")
