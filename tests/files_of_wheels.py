"""Which files two wheels both install, with other content, by the RECORD of every distribution of an environment.

    make setup GPU=1 && .venv/bin/python tests/files_of_wheels.py [FOLDER ...]

To be run once after `make lock`: CUDA's libraries come in wheels of several makers, and installers write them over each
other without a word. Folders are site-packages to look at in place of this Python's.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import distributions


def main() -> None:
    differ, n_same, n_files, n_wheels = shared_files(sys.argv[1:] or sys.path)
    for file, names in sorted(differ.items()):
        print(f"{file}: {', '.join(names)}")
    print(
        f"{n_files} files of {n_wheels} wheels: {len(differ)} differ between two wheels, {n_same} are the same in two"
    )
    sys.exit(bool(differ))


def shared_files(folders: Sequence[str]) -> tuple[dict[str, list[str]], int, int, int]:
    """Compare the distributions that are installed in some folders.

    Returns:
        The wheels of each file that several install with other content; how many files several install alike; how many
        files and wheels there are.
    """
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    wheels = {one.metadata["Name"]: one for one in distributions(path=list(folders))}
    for name, wheel in wheels.items():
        for file in wheel.files or ():
            if file.hash:  # bytecode and RECORD itself have none
                owners[str(file)][name] = file.hash.value
    shared = {file: names for file, names in owners.items() if len(names) > 1}
    differ = {file: sorted(names) for file, names in shared.items() if len(set(names.values())) > 1}
    return differ, len(shared) - len(differ), len(owners), len(wheels)


if __name__ == "__main__":
    main()
