"""Install a lock and deepsky into the environment of this Python: by uv, or by pip where uv will not do.

`make setup` runs it, with the word gpu where CUDA's libraries are wanted too. uv reads nothing of pip's configuration,
so what pip is told (its index, constraints, a certificate, ...) is told to uv; where that cannot be, and where uv
cannot be had or fails, pip installs.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

PIP = (sys.executable, "-m", "pip")
INSTALL = (*PIP, "install", "--quiet", "--disable-pip-version-check")
UV = (sys.executable, "-m", "uv", "--quiet", "pip", "install", "--python", sys.executable)
LOCKED = ("--requirement", "requirements-gpu.lock" if "gpu" in sys.argv[1:] else "requirements.lock")
# pip's option -> the variable that tells uv the same, and what stands between several values there.
SAME = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "client-cert": ("SSL_CLIENT_CERT", " "),
    "proxy": ("ALL_PROXY", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
}
# What changes neither what is installed nor where it comes from.
IDLE = ("cache-dir", "config-file", "disable-pip-version-check", "no-color", "no-input", "progress-bar", "quiet",
        "retries", "root-user-action", "verbose")  # fmt: skip


def main() -> None:
    """Install, and say why where it is pip that does."""
    why_not = _install_by_uv()
    if why_not:
        print(f"{why_not}: installing with pip, which takes longer", flush=True)
        for what in (LOCKED, ("--no-deps", "--editable", ".")):
            if _fails([*INSTALL, *what]):
                sys.exit(1)
    tell_dvc_of_git()


def uv_variables(listing: str) -> dict[str, str]:
    """Return the environment that tells uv what pip's configuration tells pip.

    Args:
        listing: what ``pip config list`` prints.

    Raises:
        ValueError: an option that uv cannot be told; names it.
    """
    options = {}
    for scope in ("global.", "install.", ":env:."):  # each outdoes the one before it
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(scope):
                options[key.removeprefix(scope)] = ast.literal_eval(value)
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # all indexes count alike, as they do for pip
    for option, value in options.items():
        if option not in (*SAME, *IDLE):
            raise ValueError(f"uv does not know pip's {option}")
        if option in SAME:
            variable, separator = SAME[option]
            variables[variable] = separator.join(value.split())
    return variables


def tell_dvc_of_git() -> None:
    """Tell DVC whether the current folder is in a git repository: a downloaded ZIP is not, and DVC would refuse it."""
    try:
        has_git = not _fails(["git", "rev-parse"], stderr=subprocess.DEVNULL)
    except OSError:  # no git on this machine
        has_git = False
    is_told_none = "no_scm" in (Path(".dvc/config.local").read_text() if Path(".dvc/config.local").exists() else "")
    if has_git == is_told_none:
        change = ["--unset", "core.no_scm"] if has_git else ["core.no_scm", "true"]
        subprocess.run([sys.executable, "-m", "dvc", "config", "--local", *change], check=True)
    if not has_git:
        print("no git repository: all works, but no run can say which commit made it (git init, then make clean setup)")


def _install_by_uv() -> str:
    """Return why it cannot be; nothing where it is done."""
    listing = subprocess.run([*PIP, "config", "list"], check=True, capture_output=True, text=True).stdout
    try:
        variables = uv_variables(listing)
    except ValueError as error:
        return str(error)
    if _fails([*INSTALL, "uv"]):
        return "uv cannot be installed"
    if _fails([*UV, "--compile-bytecode", *LOCKED, "--editable", "."], **variables):
        return "uv failed"
    return ""


def _fails(command: list[str], stderr: int | None = None, **variables: str) -> bool:
    return subprocess.run(command, env=os.environ | variables, stderr=stderr).returncode != 0


if __name__ == "__main__":
    main()
