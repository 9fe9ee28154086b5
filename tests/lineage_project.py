"""A small project with DVC's cache and lock, as its stages leave it behind, without training anything."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run

FRAMES = {f"2874/1/frame-{band}-002874-1-0330.fits.bz2": f"{band} frame".encode() for band in "gr"}
URL = "https://data.sdss.org/frames/"
ROWS = "id,label,image,run,camcol,field,ra_deg,dec_deg,edge,group\n" + "".join(
    f"{one},STAR,{one},2874,1,{field},10.0,1.0,False,002874-1-0{field}\n"
    for one, field in ((1, 330), (2, 330), (3, 331))
)
SPLIT = "id,split,group\n1,train,a\n2,test,a\n3,val,b\n"
STAGE = "train@sky_cutouts-net"


def digest_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Project:
    """A project whose stages were run by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".dvc").mkdir()
        (root / ".gitignore").write_text("mlflow.db*\nmlruns\ndata\nmodels\n.dvc\nplan.yaml\n")
        (root / "params.yaml").write_text("tracking: {experiment: sky}\n")
        self.git("init", "--quiet")
        self.commit("first")

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
            cwd=self.root, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def commit(self, message: str) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", message)

    def keep(self, content: bytes) -> str:
        """Put content into DVC's cache."""
        digest = digest_of(content)
        place = self.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return digest

    def keep_folder(self, files: dict[str, bytes]) -> str:
        entries = [{"md5": self.keep(content), "relpath": name} for name, content in files.items()]
        text = json.dumps(entries).encode()
        digest = f"{digest_of(text)}.dir"
        place = self.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text)
        return digest

    def run_stages(
        self, *, frames: dict[str, bytes] = FRAMES, rows: str = ROWS, split: str = SPLIT, size_px: int = 64
    ) -> None:
        """Write what dvc repro leaves in lock, plan and cache before stage train."""
        manifest = "path,url,bytes,sha256,time,etag,last_modified,mirror\n" + "".join(
            f"frames/{name},{URL}{name},{len(content)},{hashlib.sha256(content).hexdigest()},,,,\n"
            for name, content in frames.items()
        )
        raw, packed = self.keep_folder(frames), self.keep_folder({"rows.csv": rows.encode()})
        outs = {
            "fetch": {"data/raw/frames": raw, "data/raw/manifest.csv": self.keep(manifest.encode())},
            "render@sky": {"data/packed/sky_cutouts": packed},
            "split_frames@sky-cutouts": {"data/splits/sky_cutouts.csv": self.keep(split.encode())},
            "weights": {"models/pretrained": self.keep_folder({"net/weights.json": b"{}"})},
        }
        deps = {
            "render@sky": {"data/raw/frames": raw},
            "split_frames@sky-cutouts": {"data/packed/sky_cutouts": packed},
        }
        places = {"fetch": "fetch", "render@sky": "render.sky", "split_frames@sky-cutouts": "split.sky_cutouts"}
        lock = {
            stage: {
                "deps": [{"path": path, "md5": md5} for path, md5 in deps.get(stage, {}).items()],
                "params": {"versions.json": {places[stage]: "abc"}} if stage in places else {},
                "outs": [{"path": path, "md5": md5} for path, md5 in made.items()],
            }
            for stage, made in outs.items()
        }
        render = {"cutout_size_px": size_px, "bands": ["g", "r"], "position_band": "r", "code": "c0de"}
        plan = {
            "fetch": {"code": "fe7c", "release": "dr17"},
            "render": {"sky": render},
            "split": {"sky_cutouts": {"seed": 7, "code": "5b17"}},
            "train": {"sky_cutouts-net": {"seed": 1, "code": "7a1"}},
        }
        for name, content in (("dvc.lock", {"stages": lock}), ("plan.yaml", {"stages": plan})):
            with (self.root / name).open("w") as file:
                YAML(typ="safe").dump(content, file)

    def train(self, monkeypatch: pytest.MonkeyPatch, *, experiment: str = "sky", **params: Any) -> str:
        """Log a run as stage train does; returns its id."""
        monkeypatch.setenv("DVC_STAGE", STAGE)
        inputs = [Path("data/packed/sky_cutouts"), Path("data/splits/sky_cutouts.csv"), Path("models/pretrained/net")]
        with training_run(
            tracking=TrackingParams(experiment=experiment), name="sky_cutouts-net", dataset="sky_cutouts",
            network="net", params={"seed": 1, **params}, tags={}, inputs=inputs,
        ) as run:  # fmt: skip
            run.log_metrics({"test_accuracy": 0.5 + 0.1 * params.get("epochs", 0)})
        monkeypatch.delenv("DVC_STAGE")
        return run.run_id
