import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from deepsky.files import whole_file, whole_folder


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with pytest.raises(ZeroDivisionError), whole_file(target) as path:
        path.write_text(f"half {1 / 0}")
    assert list(target.parent.iterdir()) == []
    with whole_file(target) as path:
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "data"
    (target / "old").mkdir(parents=True)
    with whole_folder(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_errors_name_the_target(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists") as caught, whole_file(tmp_path / "file" / "x.csv"):
        pass
    assert "file" in str(caught.value.filename)
    with pytest.raises(OSError, match="No space") as caught, whole_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "out")


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_stays(tmp_path):
    script = f"""
import time
from pathlib import Path
from deepsky.files import whole_folder
with whole_folder(Path({str(tmp_path / "out")!r})) as folder:
    (folder / "begun").touch()
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.*/begun")) and time.monotonic() < deadline:
        time.sleep(0.02)
    with whole_folder(tmp_path / "out"):
        assert len(list(tmp_path.glob(".out.*"))) == 2, "the live process keeps its folder"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with whole_folder(tmp_path / "out"):
        assert len(list(tmp_path.glob(".out.*"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
