"""deepsky repro against real DVC, on pipelines of a few shell commands."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from deepsky.errors import DeepSkyError
from deepsky.pipeline.runner import bring_up_to_date

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")  # pygtrie in DVC

SRC = Path(__file__).resolve().parents[1] / "src"
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DEEPSKY_", "DVC_"))} | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(SRC),
}
PIPELINE = """
stages:
  first: {cmd: cat source.txt > first.txt && echo first >> ran, deps: [source.txt], outs: [first.txt]}
  second: {cmd: cat first.txt first.txt > second.txt && echo second >> ran, deps: [first.txt], outs: [second.txt]}
  left: {cmd: echo left > left.txt && echo left >> ran, params: [train.seed], outs: [left.txt]}
  right: {cmd: echo right > right.txt && echo right >> ran, params: [train.seed], outs: [right.txt]}
"""


def dvc(*command: str) -> str:
    done = subprocess.run(["dvc", *command], env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def init() -> None:
    """Put the working directory under git and DVC."""
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init().close()


def start(*command: str, env: Mapping[str, str] = ENV) -> subprocess.Popen[str]:
    """Start a command, with SIGINT's default action even where pytest itself runs in the background."""

    def listen() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, preexec_fn=listen, **pipes)


def repro(*options: str, env: Mapping[str, str] = ENV) -> tuple[int, str, str]:
    process = start("deepsky", "repro", "--jobs", "2", *options, env=env)
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def ran() -> list[str]:
    """The stages whose commands ran, since this was last asked."""
    path = Path("ran")
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(lines)


def appears(path: str) -> None:
    for _ in range(600):
        if Path(path).exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")


def living() -> list[psutil.Process]:
    """The processes at work in this project, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd() == str(Path.cwd()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def project(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """An empty DVC project as working directory, to be given its dvc.yaml."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    init()
    Path("params.yaml").write_text("train: {seed: 1}\ntracking: {experiment: tests}\n")
    Path("source.txt").write_text("one\n")

    def write(text: str) -> Path:
        Path("dvc.yaml").write_text(text)
        return root

    return write


@pytest.fixture(autouse=True)
def _signals_as_before() -> Any:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


CLOCK = r"\d\d:\d\d:\d\d"
HOLD = """
import sys, time
from dvc.repo import Repo
with Repo() as repo, repo.lock:
    open("held", "w").close()
    time.sleep(6)
"""


def test_a_lock_held_by_another_process_is_waited_for(project):
    project(PIPELINE)
    holder = subprocess.Popen([sys.executable, "-c", HOLD], env=ENV)
    appears("held")
    returncode, stdout, stderr = repro()
    assert holder.wait() == 0
    assert returncode == 0, stdout + stderr
    assert "waiting for another dvc to end: it holds the project's lock" in stdout
    assert ran() == ["first", "left", "right", "second"]
    assert "[4/4] " in stdout
    assert "up to date" in dvc("status")


def test_a_lock_taken_while_stages_run_is_waited_for(project):
    project(
        PIPELINE.replace(
            "cat source.txt >", "touch begun && while ! test -e held; do sleep 0.1; done; cat source.txt >"
        )
    )
    process = start("deepsky", "repro", "--jobs", "2")
    appears("begun")
    subprocess.run([sys.executable, "-c", HOLD], env=ENV, check=True)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stdout + stderr
    assert ran() == ["first", "left", "right", "second"]


def test_files_that_another_dvc_repro_locked_are_waited_for(project):
    project(
        PIPELINE.replace("cat source.txt >", "touch begun && while ! test -e go; do sleep 0.1; done; cat source.txt >")
    )
    other = start("dvc", "repro", "--single-item", "first")
    appears("begun")
    process = start("deepsky", "repro", "--jobs", "2")
    assert process.stdout
    assert "is busy" in process.stdout.readline()
    Path("go").touch()
    other.communicate(timeout=120)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stdout + stderr
    assert ran() == ["first", "left", "right", "second"], "no stage ran twice"


def test_status_can_be_asked_while_a_stage_runs(project):
    project("stages: {slow: {cmd: touch begun && until test -e go; do sleep 0.1; done; echo > out, outs: [out]}}")
    process = start("deepsky", "repro", "--jobs", "2")
    appears("begun")
    assert "slow" in dvc("status")
    Path("go").touch()
    assert process.wait(timeout=120) == 0
    process.communicate()


def test_books_are_those_of_plain_dvc_repro(project, tmp_path, monkeypatch):
    text = """
stages:
  first: {cmd: cat source.txt > first.txt, deps: [source.txt], outs: [first.txt]}
  folder:
    cmd: [mkdir folder, 'echo "{\\"a\\": 1}" > numbers.json', cp first.txt folder/a, echo b > folder/b]
    deps: [first.txt]
    params: [train.seed]
    outs: [folder]
    metrics: [{numbers.json: {cache: false}}]
  within: {cmd: cat ../folder/a > out.txt, wdir: sub, deps: [../folder], outs: [out.txt: {cache: false}]}
  each:
    foreach: [a, b]
    do: {cmd: 'cat folder/${item} > each_${item}.txt', deps: ['folder/${item}'], outs: ['each_${item}.txt']}
  pair:
    matrix: {x: [1, 2], y: [p, q]}
    cmd: echo ${item.x} ${item.y} > pair_${item.x}_${item.y}.txt
    params: [train.seed]
    outs: ["pair_${item.x}_${item.y}.txt"]
"""
    root = project(text)
    (root / "sub").mkdir()
    sibling = tmp_path / "sibling"
    shutil.copytree(root, sibling)
    monkeypatch.chdir(sibling)
    dvc("repro")
    monkeypatch.chdir(root)
    bring_up_to_date(3)
    for again in (False, True):
        ours, theirs = (YAML(typ="safe").load(folder / "dvc.lock") for folder in (root, sibling))
        assert ours == theirs
        assert len(ours["stages"]) == 9
        assert ours["stages"].keys() >= {"each@a", "pair@1-p"}
        for part in (".dvc/cache/files", ".dvc/cache/runs", "folder"):
            ours, theirs = (
                {
                    str(path.relative_to(folder)): path.read_bytes()
                    for path in (folder / part).rglob("*")
                    if path.is_file()
                }
                for folder in (root, sibling)
            )
            assert ours == theirs
        for name in (".gitignore", "out.txt", "numbers.json"):
            ours, theirs = (sorted(folder.rglob(name)) for folder in (root, sibling))
            assert [sorted(path.read_text().split()) for path in ours] == [
                sorted(p.read_text().split()) for p in theirs
            ]
        assert "up to date" in dvc("status")
        if not again:  # what was there before is replaced, in the same way
            for folder in (root, sibling):
                (folder / "source.txt").write_text("other\n")
            monkeypatch.chdir(sibling)
            dvc("repro")
            monkeypatch.chdir(root)
            bring_up_to_date(3)


def test_a_rewritten_input_is_seen_and_an_unchanged_one_ends_the_chain(project, capsys):
    project(PIPELINE.replace("cat source.txt >", "head -1 source.txt >"))
    bring_up_to_date(2)
    assert ran() == ["first", "left", "right", "second"]
    Path("source.txt").write_text("two\n")
    bring_up_to_date(2)
    assert ran() == ["first", "second"]
    assert Path("second.txt").read_text() == "two\ntwo\n"
    capsys.readouterr()
    Path("source.txt").write_text("two\nand a line that first does not read\n")
    bring_up_to_date(2)
    assert ran() == ["first"]
    lines = [
        rf"\[1/2\] {CLOCK} first, \d s\n",
        rf"\[2/2\] {CLOCK} second\n    Stage 'second' didn't change, skipping\n",
    ]
    assert re.fullmatch("".join(lines), capsys.readouterr().out)
    bring_up_to_date(2)
    assert ran() == []
    assert capsys.readouterr().out == ""


def test_an_older_run_comes_from_the_run_cache(project, capsys):
    project(PIPELINE)
    bring_up_to_date(2)
    Path("source.txt").write_text("two\n")
    bring_up_to_date(2)
    ran()
    capsys.readouterr()
    Path("source.txt").write_text("one\n")
    Path("second.txt").write_text("a person's own words\n")
    Path("left.txt").unlink()
    bring_up_to_date(2)
    assert ran() == []
    assert Path("second.txt").read_text() == "one\none\n"
    said = capsys.readouterr().out
    assert " first\n    Stage 'first' is cached - skipping run, checking out outputs\n" in said
    assert "up to date" in dvc("status")


def test_persistent_outputs_are_kept_and_others_are_not(project):
    project(
        "stages: {grow: {cmd: echo x >> kept.txt; echo x >> new.txt, deps: [source.txt],"
        " outs: [kept.txt: {persist: true}, new.txt]}}"
    )
    bring_up_to_date(2)
    Path("source.txt").write_text("two\n")
    bring_up_to_date(2)
    assert Path("kept.txt").read_text() == "x\nx\n"
    assert Path("new.txt").read_text() == "x\n"


def test_frozen_stages_are_not_run_nor_what_only_they_need(project):
    project(PIPELINE.replace("deps: [first.txt], outs", "deps: [first.txt], frozen: true, outs"))
    Path("first.txt").write_text("not by its stage\n")
    Path("second.txt").write_text("made by hand\n")
    bring_up_to_date(2, targets=["second"])
    assert ran() == []
    assert Path("second.txt").read_text() == "made by hand\n"
    assert "second" in Path("dvc.lock").read_text()
    returncode, stdout, stderr = repro()
    assert returncode == 0, stdout + stderr
    assert ran() == ["first", "left", "right"]
    assert Path("second.txt").read_text() == "made by hand\n"


def test_data_that_a_person_added_is_entered(project):
    project(PIPELINE)
    dvc("add", "--quiet", "source.txt")
    bring_up_to_date(2)
    ran()
    Path("source.txt").write_text("two\n")
    bring_up_to_date(2)
    assert ran() == ["first", "second"]
    assert "up to date" in dvc("status")


def test_only_the_stages_named_are_run(project):
    project(PIPELINE)
    bring_up_to_date(2, ["left", "first"])
    assert ran() == ["first", "left"]
    Path("source.txt").write_text("two\n")
    bring_up_to_date(1, ["second"])
    assert ran() == ["second"]
    assert Path("second.txt").read_text() == "one\none\n"
    bring_up_to_date(1, [])
    with pytest.raises(DeepSkyError, match=r"dvc.yaml: has no stage second@x; "):
        bring_up_to_date(2, ["second@x"])
    assert ran() == []


def test_named_stages_keep_their_order_across_one_that_is_not(project):
    project("""
stages:
  one: {cmd: sleep 1; cat source.txt > one.txt; echo one >> order, deps: [source.txt], outs: [one.txt]}
  between: {cmd: cat one.txt > between.txt, deps: [one.txt], outs: [between.txt]}
  three: {cmd: cat between.txt > three.txt; echo three >> order, deps: [between.txt], outs: [three.txt]}
""")
    Path("between.txt").write_text("old\n")
    bring_up_to_date(2, ["three", "one"])
    assert Path("order").read_text() == "one\nthree\n"


def test_groups_of_stages_are_targets(project):
    project("""
stages:
  each:
    foreach: [a, b]
    do: {cmd: 'echo ${item} >> ran; echo > ${item}.txt', params: [train.seed], outs: ['${item}.txt']}
  pair:
    matrix: {x: [c, d]}
    cmd: echo ${item.x} >> ran; echo > ${item.x}.txt
    params: [train.seed]
    outs: ["${item.x}.txt"]
""")
    bring_up_to_date(2, targets=["each", "pair@d"])
    assert ran() == ["a", "b", "d"]
    bring_up_to_date(2, ["pair@c"])
    assert ran() == ["c"]


FAILING = """
stages:
  bad: {cmd: 'echo error: bad.txt: is bad; exit 3', params: [train.seed], outs: [bad.txt]}
  missing: {cmd: echo > elsewhere.txt, params: [train.seed], outs: [missing.txt]}
  after: {cmd: echo > after.txt, deps: [bad.txt], outs: [after.txt]}
  slow: {cmd: sleep 3; echo > slow.txt, params: [train.seed], outs: [slow.txt]}
  last: {cmd: cat slow.txt > last.txt, deps: [slow.txt], outs: [last.txt]}
"""


def test_a_failure_stops_what_waits_for_it_and_is_said_last(project):
    project(FAILING)
    returncode, stdout, stderr = repro()
    assert returncode == 1
    lines = stdout.splitlines()
    assert "[5/5]" not in stdout
    assert "not run, as they wait for what failed: after" in lines
    ends = lines.index("bad failed:")
    assert max(i for i, line in enumerate(lines) if re.fullmatch(rf"\[\d/5\] {CLOCK} last, \d s", line)) < ends
    assert lines[ends:] == [
        "bad failed:",
        "    error: bad.txt: is bad",
        "    ERROR: its command ended with exit code 3",
        "missing failed:",
        "    ERROR: output 'missing.txt' does not exist",
    ]
    assert stderr == "error: stages bad, missing: failed; its own line above says why\n"
    assert Path("last.txt").exists()
    assert not Path("after.txt").exists()
    assert set(YAML(typ="safe").load(Path("dvc.lock"))["stages"]) == {"slow", "last"}


def test_a_missing_input_fails_its_stage_only(project, capsys):
    project(PIPELINE.replace("deps: [source.txt]", "deps: [nowhere.txt]"))
    with pytest.raises(DeepSkyError, match="stage first: failed"):
        bring_up_to_date(2)
    assert ran() == ["left", "right"]
    assert re.fullmatch(
        r"    ERROR: .*No such file or directory.*nowhere.txt'", capsys.readouterr().out.splitlines()[-1]
    )


def test_a_log_that_cannot_be_written_fails_its_stage_only(project, capsys):
    project(PIPELINE)
    Path("logs/first.log").mkdir(parents=True)
    with pytest.raises(DeepSkyError, match="stage first: failed"):
        bring_up_to_date(2)
    assert ran() == ["left", "right"]
    assert "Is a directory: 'logs/first.log'" in capsys.readouterr().out.splitlines()[-1]


def test_a_pipeline_that_cannot_be_read_is_one_line(project):
    project("stages: {a: {cmd: [}}")
    returncode, stdout, stderr = repro()
    assert (returncode, stdout) == (1, "")
    assert re.fullmatch(r"error: dvc: cannot read the pipeline \(.*\n", stderr)


STUBBORN = """
stages:
  polite: {cmd: touch polite; exec sleep 300, params: [train.seed], outs: [a]}
  stubborn: {cmd: "trap '' INT; touch stubborn; sleep 300; sleep 301", params: [train.seed], outs: [b]}
  third: {cmd: touch third, params: [train.seed], outs: [third]}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_child_and_leaves_no_lock(project, number):
    project(STUBBORN)
    process = start("deepsky", "repro", "--jobs", "2")
    appears("polite")
    appears("stubborn")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not living()
    assert not Path("third").exists()
    assert stdout == ""
    assert stderr.strip() == ("stopped; nothing half-written was left behind" if number == signal.SIGINT else "")
    dvc("status")  # nobody holds the lock
    project(STUBBORN.replace("exec sleep 300", "touch a").replace("sleep 300; sleep 301", "touch b"))
    assert repro()[0] == 0, "the project can be brought up to date at once"


def test_a_signal_ends_the_plain_run_as_well(project):
    project("stages: {slow: {cmd: touch begun; sleep 300, params: [train.seed], outs: [a]}}")
    process = start("deepsky", "repro")
    appears("begun")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not living()


def test_a_signal_while_waiting_for_the_lock_ends_the_wait(project):
    project(PIPELINE)
    holder = subprocess.Popen([sys.executable, "-c", HOLD.replace("10", "300")], env=ENV)
    try:
        appears("held")
        process = start("deepsky", "repro", "--jobs", "2")
        assert process.stdout
        assert "waiting for another dvc" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        holder.kill()
        holder.wait()


def test_a_second_repro_is_refused(project):
    project(
        "stages: {slow: {cmd: touch begun; until test -e go; do sleep 0.1; done; echo > a,"
        " params: [train.seed], outs: [a]}}"
    )
    first = start("deepsky", "repro", "--jobs", "2")
    appears("begun")
    returncode, stdout, stderr = repro()
    assert (returncode, stdout) == (1, "")
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    line = f"error: deepsky repro: process {first.pid}, started {when}, holds this project; .*\n"
    assert re.fullmatch(line, stderr)
    Path("go").touch()
    stdout, stderr = first.communicate(timeout=120)
    assert first.returncode == 0, stdout + stderr
    assert repro()[0] == 0


def test_what_a_stage_prints_stands_below_its_name(project):
    project("""
stages:
  talks:
    cmd: [echo to stdout, "echo to stderr >&2", "echo 'E0000 noise of a library'", echo > a]
    params: [train.seed]
    outs: [a]
""")
    returncode, stdout, stderr = repro()
    assert returncode == 0, stdout + stderr
    assert re.fullmatch(rf"\[1/1\] {CLOCK} talks, \d s\n    to stdout\n    to stderr\n", stdout)
    assert repro() == (0, "everything is up to date\n", "")


def test_a_stage_knows_its_name_and_its_project(project):
    root = project('stages: {who: {cmd: echo "$DVC_STAGE $DVC_ROOT" > a, params: [train.seed], outs: [a]}}')
    bring_up_to_date(2)
    assert (root / "a").read_text() == f"who {root}\n"
