"""deepsky urls prints what stage fetch asks for, and asks nobody itself unless it is told to."""

import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from deepsky.archives.addresses import FOLDERS
from deepsky.cli import cli
from deepsky.commands import urls
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.stages import fetch
from tests.archive_server import ArchiveServer, frame_content, jpeg_content
from tests.sql_service import synthetic_objects
from tests.test_panstarrs import LISTS, ListService

OBJECTS = synthetic_objects(4).head(4)
OBJECTS.insert(0, "id", OBJECTS["objid"])
N_FIELDS = len(OBJECTS[["run", "camcol", "field"]].drop_duplicates())
OUTSIDE = float(OBJECTS["ra"].iloc[0])


def picture(query, body):
    return 200, {}, jpeg_content(round(float(query["ra"]) * 1e6))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Both surveys, and a project in the working folder that has a catalogue."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    OBJECTS.to_csv("data/catalogue.csv", index=False)
    lists = ListService(gap=lambda ra, dec: ra == OUTSIDE)
    pages = {LISTS: lists, "/dr16/SkyServerWS/ImgCutout/getjpeg": picture, "/cgi-bin/fitscut.cgi": picture}
    fields = OBJECTS[["run", "camcol", "field"]].drop_duplicates().astype(int).itertuples(index=False, name=None)
    frames = {
        f"/sas/dr12/boss/photoObj/frames/301/{run}/{camcol}/frame-r-{run:06d}-{camcol}-{field:04d}.fits.bz2":
            frame_content(run, camcol, field, "r", noisy_rows=1)
        for run, camcol, field in fields
    }  # fmt: skip
    with ArchiveServer(frames, pages) as server:
        write_params(server.url)
        yield server


def write_params(mirror, survey="sdss", **archive):
    asked = {"bands": "[r]", "frames_release": "dr12", "cutouts_release": "dr16", **archive}
    text = f"catalogue: {{survey: {survey}}}\ndownload: {{mirror: '{mirror}', requests_per_s: null}}\narchive:\n"
    Path("params.yaml").write_text(text + "".join(f"  {key}: {value}\n" for key, value in asked.items()))


def printed(*arguments):
    done = CliRunner().invoke(cli, ["urls", *arguments], catch_exceptions=False, standalone_mode=False)
    return done.stdout.splitlines(), done.stderr


def test_what_is_printed_is_what_is_fetched(server):
    lines, said = printed("--ask")
    assert said == "1 files of Pan-STARRS are left out: no stacks cover them\n"
    n_asked = len(server.requests)
    experiment = read_experiment()
    archive, download = experiment.archive, experiment.download
    fetch.run(experiment.catalogue, archive, download, "stop", catalogue=urls.CATALOGUE, out=urls.RAW)
    fetched = [each.target for each in server.requests[n_asked:]]
    assert len(fetched) == len(lines) == N_FIELDS + 4 + 3
    hosts = ("https://data.sdss.org", "https://skyserver.sdss.org", "https://ps1images.stsci.edu")
    assert {line.removeprefix(host) for line in lines for host in hosts if line.startswith(host)} == set(fetched)
    assert printed("--kind", "stsci_jpg")[0] == lines[-3:], "what Pan-STARRS told is known from now on"
    assert len(server.requests) == n_asked + len(fetched)


def test_without_the_network_what_only_pan_starrs_knows_is_refused(server, monkeypatch):
    def refuse(*_):
        raise AssertionError("asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(DataError, match="stacks cover 4 of 4 places is known only there; add --ask"):
        printed()
    frames, jpegs = printed("--kind", "frames")[0], printed("--kind", "sdss_jpg")[0]
    assert (len(frames), len(jpegs)) == (N_FIELDS, 4)
    assert printed("--kind", "sdss_jpg", "--kind", "frames")[0] == frames + jpegs


def test_a_list_has_no_frames_to_print(server):
    OBJECTS[["id", "ra", "dec", "class"]].to_csv("data/catalogue.csv", index=False)
    write_params(server.url, "list", bands="[]", stsci_jpg="false")
    assert len(printed()[0]) == 4
    with pytest.raises(ConfigError, match=r"params.yaml: archive: asks for no file of frames that there is; choose"):
        printed("--kind", "frames")
    write_params(server.url, "list")
    with pytest.raises(DataError, match="column 'run' is missing"):
        printed("--kind", "frames")


def test_what_cannot_be_printed_is_one_line(server):
    write_params(server.url, "simulated")
    with pytest.raises(ConfigError, match="survey: is simulated, so nothing is downloaded; set it to sdss"):
        printed()
    write_params(server.url)
    urls.CATALOGUE.unlink()
    with pytest.raises(DataError, match="is not there; make it: deepsky repro catalogue"):
        printed()


def test_every_kind_can_be_left_out():
    assert tuple(urls._WITHOUT) == FOLDERS


def test_a_reader_that_has_enough_is_no_error(server):
    pd.concat([OBJECTS.assign(id=OBJECTS["id"] + f"-{n}") for n in range(500)]).to_csv(
        "data/catalogue.csv", index=False
    )
    command = f"{sys.executable} -m deepsky urls --kind sdss_jpg | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("https://skyserver.sdss.org/dr16/")
    assert done.stderr == ""
