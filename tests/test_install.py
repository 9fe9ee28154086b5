"""What pip is told, uv is told too."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from install import tell_dvc_of_git, uv_variables

from tests.files_of_wheels import shared_files
from tests.workspace import ROOT

CONFIG = """
[global]
index-url = https://me:secret@pypi.example.org/simple
extra-index-url =
    https://one.example.org/simple
    https://two.example.org/simple
find-links = /wheels /more
constraint = global.txt
[install]
constraint = own.txt
"""
SAME_FOR_UV = {
    "UV_DEFAULT_INDEX": "https://me:secret@pypi.example.org/simple",
    "UV_INDEX": "https://one.example.org/simple https://two.example.org/simple",
    "UV_FIND_LINKS": "/wheels,/more",
    "UV_CONSTRAINT": "own.txt",
    "SSL_CERT_FILE": "/ca.pem",
    "UV_INDEX_STRATEGY": "unsafe-best-match",
}


def test_what_pip_says_of_its_configuration_reaches_uv(tmp_path):
    (tmp_path / "pip.conf").write_text(CONFIG)
    folders = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"), str(tmp_path / "none"))
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env = {**others, **folders, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_CERT": "/ca.pem"}
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], env=env, check=True, capture_output=True, text=True
    ).stdout
    found = uv_variables(said)
    assert {name: found[name] for name in SAME_FOR_UV} == SAME_FOR_UV


def test_the_environment_outdoes_the_file():
    listing = ":env:.index-url='https://b'\nglobal.index-url='https://a'\nglobal.no-index='true'\n"
    assert uv_variables(listing)["UV_DEFAULT_INDEX"] == "https://b"
    assert uv_variables(listing)["UV_NO_INDEX"] == "true"


def test_what_changes_no_package_is_left_out_and_other_commands_do_not_count():
    listing = ":env:.disable-pip-version-check='1'\nglobal.cache-dir='/cache'\nfreeze.require-hashes='yes'\n"
    assert uv_variables(listing) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


@pytest.mark.parametrize("option", ["require-hashes", "no-binary", "keyring-provider", "target"])
def test_an_option_that_uv_does_not_know_is_left_to_pip(option):
    with pytest.raises(ValueError, match=f"uv does not know pip's {option}"):
        uv_variables(f"install.{option}='yes'\n")


def _lines(name):
    return {line for line in (ROOT / name).read_text().splitlines() if line}


def test_the_lock_for_a_gpu_is_the_other_one_with_one_set_of_cuda_libraries():
    """Wheels of two CUDA majors install files of the same names over each other."""
    plain, gpu = _lines("requirements.lock"), _lines("requirements-gpu.lock")
    assert plain < gpu
    more = {line.partition("=")[0] for line in gpu - plain}
    assert all(re.fullmatch(r"nvidia-[a-z-]+-cu12|jax-cuda12-(pjrt|plugin)", name) for name in more), more
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12", "jax-cuda12-plugin"} <= more


def test_no_two_wheels_install_other_content_under_one_name(tmp_path):
    """So no library of CUDA is another wheel's: run where GPU=1 was set up, see tests/files_of_wheels.py."""
    assert shared_files(sys.path)[0] == {}
    for name, content in (("one", "a"), ("two", "b"), ("three", "a")):
        for file in ("x.so", "x.pyc", f"{name}.py"):
            (tmp_path / file).touch()
        record = f"x.so,sha256={content},1\n{name}.py,sha256=c,1\nx.pyc,,\n"
        (tmp_path / f"{name}-1.dist-info").mkdir()
        (tmp_path / f"{name}-1.dist-info/RECORD").write_text(record)
        (tmp_path / f"{name}-1.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    assert shared_files([str(tmp_path)]) == ({"x.so": ["one", "three", "two"]}, 0, 4, 3)


@pytest.mark.parametrize(
    ("words", "installs"), [((), "install.py \n"), (("GPU=0",), "install.py \n"), (("GPU=1",), "install.py gpu\n")]
)
def test_make_installs_the_lock_that_was_asked_for(tmp_path, words, installs):
    for name in ("Makefile", "requirements.lock", "requirements-gpu.lock", "pyproject.toml", "install.py"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    env = {name: value for name, value in os.environ.items() if name not in ("GPU", "MAKEFLAGS", "MAKEOVERRIDES")}
    command = ["make", "--dry-run", "--always-make", "setup", *words]
    said = subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    assert installs in said


def test_a_downloaded_zip_without_git_works(tmp_path, monkeypatch, capfd):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    status = [sys.executable, "-m", "dvc", "status"]
    assert subprocess.run(status).returncode != 0
    tell_dvc_of_git()
    assert "no git repository: all works" in capfd.readouterr().out
    assert subprocess.run(status).returncode == 0
    subprocess.run(["git", "init", "--quiet"], check=True)
    tell_dvc_of_git()
    assert "no_scm" not in (tmp_path / ".dvc/config.local").read_text()
    assert subprocess.run(status).returncode == 0
