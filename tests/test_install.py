"""What pip is told, uv is told too."""

import os
import subprocess
import sys

import pytest
from install import uv_variables

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
