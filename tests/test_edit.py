import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from deepsky.errors import ConfigError
from deepsky.experiment import edit
from tests.conftest import ROOT

TEXT = """\
# What is worth a line.
tracking: {experiment: sky}    # where runs go

datasets:                    # what is learned from
  frames:                    # of a telescope
    sdss:
      folder: data/raw/frames
      size: 64               # px

  pictures:
    zoo:
      format: galaxy_zoo1
      classes: [a, b]        # both
    # of my own
    mine: {format: images}   # mine

compare:
  datasets: {sdss_rgb, zoo}  # every one
  networks: {mobilenet, cnn_small}

runs:
  first: {dataset: zoo, network: vgg16}
  second:                    # the better one
    dataset: zoo
    network: vgg16
    rate: 1e-3

# How searches go.
tune:
  trials: 100                # in total
"""
ENTRY = {"dataset": "zoo", "patience": None, "units": (64, 32), "rate": 1e-5, "origin": {"study": "s", "trial": 3}}
BLOCK = [
    "    dataset: zoo",
    "    patience: null",
    "    units: [64, 32]",
    "    rate: 1.0e-05",
    "    origin: {study: s, trial: 3}",
]


@pytest.fixture
def change(tmp_path):
    """Change a file, and tell which of its lines went and which came."""

    def changed(work, text=TEXT):
        path = tmp_path / "params.yaml"
        path.write_text(text)
        document = edit.load(path)
        assert edit.text_of(document) == text
        work(document)
        edit.save(document, path)
        after = path.read_text()
        body = [line for line in edit.diff(text, after).splitlines()[2:] if line[0] in "+-"]
        return [line[1:] for line in body if line[0] == "-"], [line[1:] for line in body if line[0] == "+"]

    changed.path = tmp_path / "params.yaml"
    return changed


def parsed(text):
    return YAML(typ="safe").load(text)


def test_the_projects_own_file_comes_back_byte_for_byte(change):
    assert change(lambda document: None, (ROOT / "params.yaml").read_text()) == ([], [])


def test_a_new_entry_stands_at_the_end_of_its_section_before_what_follows(change):
    gone, came = change(lambda document: edit.set_entry(document, ("runs", "third"), ENTRY))
    assert gone == []
    assert came == ["  third:", *BLOCK]
    text = change.path.read_text()
    assert "    rate: 1e-3\n  third:\n" in text
    assert "trial: 3}\n\n# How searches go.\ntune:\n" in text
    assert parsed(text)["runs"]["third"] == ENTRY | {"units": [64, 32]}


def test_an_entry_is_replaced_where_it_stands(change):
    gone, came = change(lambda document: edit.set_entry(document, ("runs", "second"), ENTRY))
    assert (gone, came) == (["    network: vgg16", "    rate: 1e-3"], BLOCK[1:])
    assert parsed(change.path.read_text())["runs"]["second"] == ENTRY | {"units": [64, 32]}
    assert "  second:                    # the better one\n" in change.path.read_text()
    assert "trial: 3}\n\n# How searches go.\n" in change.path.read_text()
    change(lambda document: edit.set_entry(document, ("runs", "first"), ENTRY))
    assert list(parsed(change.path.read_text())["runs"]) == ["first", "second"]


def test_a_section_that_is_absent_is_made(change):
    gone, came = change(lambda document: edit.set_entry(document, ("datasets", "flux", "mine"), {"size": 3}))
    assert (gone, came) == ([], ["  flux:", "    mine:", "      size: 3"])
    assert "size: 3\n\ncompare:" in change.path.read_text()
    gone, came = change(lambda document: edit.set_entry(document, ("weights", "mine"), {"size": 3}))
    assert (gone, came) == ([], ["", "weights:", "  mine:", "    size: 3"])
    assert change(lambda document: edit.add_member(document, ("compare", "datasets"), "a"), "")[1] == [
        "compare:",
        "  datasets: {a}",
    ]


@pytest.mark.parametrize("text", ["runs: {}\nb: 2\n", "runs: {a: {b: 1}}\nb: 2\n", "b: 2\nruns: null\n"])
def test_an_empty_section_and_one_in_a_line_take_entries(change, text):
    change(lambda document: edit.set_entry(document, ("runs", "third"), {"size": 3}), text)
    after = parsed(change.path.read_text())
    assert after == {"b": 2, "runs": {**(parsed(text)["runs"] or {}), "third": {"size": 3}}}
    assert "  third:\n    size: 3\n" in change.path.read_text()


def test_sets_stay_sets(change):
    gone, came = change(lambda document: edit.add_member(document, ("compare", "networks"), "vgg16"))
    assert (gone, came) == (["  networks: {mobilenet, cnn_small}"], ["  networks: {mobilenet, cnn_small, vgg16}"])
    assert change(lambda document: edit.add_member(document, ("compare", "networks"), "mobilenet")) == ([], [])
    gone, came = change(lambda document: edit.remove(document, ("compare", "datasets", "sdss_rgb")))
    assert came == ["  datasets: {zoo}            # every one"]
    assert change(lambda document: edit.add_member(document, ("s",), "c"), "s:\n  a: null\n\nt: 1\n")[1] == [
        "  c: null"
    ]


@pytest.mark.parametrize(
    ("keys", "gone"),
    [
        (("runs", "first"), ["  first: {dataset: zoo, network: vgg16}"]),
        (
            ("runs", "second"),
            [
                "  second:                    # the better one",
                "    dataset: zoo",
                "    network: vgg16",
                "    rate: 1e-3",
            ],
        ),
        (
            ("datasets", "pictures", "zoo"),
            ["    zoo:", "      format: galaxy_zoo1", "      classes: [a, b]        # both"],
        ),
        (("datasets", "pictures", "mine"), ["    mine: {format: images}   # mine"]),
        (("tune", "trials"), ["tune:", "  trials: 100                # in total"]),
        (("tracking",), ["tracking: {experiment: sky}    # where runs go", ""]),
        (("runs", "third"), []),
        (("tracking", "experiment", "sky"), []),
    ],
)
def test_only_what_is_removed_goes(change, keys, gone):
    assert change(lambda document: edit.remove(document, keys)) == (gone, [])


def test_a_section_that_is_left_empty_goes_too(change):
    gone, came = change(lambda document: edit.remove(document, ("datasets", "frames", "sdss")))
    assert gone[0].strip() == "frames:                    # of a telescope"
    assert came == []
    assert list(parsed(change.path.read_text())["datasets"]) == ["pictures"]
    assert change.path.read_text().startswith(TEXT[: TEXT.index("  frames:")] + "  pictures:\n")


def test_comments_below_the_first_section_stay(change):
    assert change(lambda document: edit.remove(document, ("a",)), "a: 1\n\n# about b\nb: 2\n") == (["a: 1"], [])


def test_line_ends_of_another_system_stay(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    document = edit.load(path)
    edit.set_entry(document, ("runs", "third"), {"size": 3})
    edit.save(document, path)
    content = path.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") == TEXT.count("\n") + 2


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_back_as_it_was_also_by_yaml_1_1(value):
    document = edit.CommentedMap()
    edit.set_entry(document, ("runs", "third"), {"rate": value, "rates": [value]})
    text = edit.text_of(document)
    old = YAML(typ="safe", pure=True)
    old.version = (1, 1)
    for back in (parsed(text), old.load(text)):
        assert back["runs"]["third"] == {"rate": value, "rates": [value]}


@pytest.mark.parametrize(
    "word",
    [
        "http://127.0.0.1:80/a",
        "a:b",
        "a: b",
        "a, b",
        "{x}",
        "[x",
        "null",
        "1e5",
        "1e-05",
        "12",
        "yes",
        "",
        "# c",
        "it's",
        "ü",
    ],
)
def test_every_word_is_read_back_as_it_was(word):
    document = edit.CommentedMap()
    edit.set_entry(document, ("runs", "third"), {"a": word, "b": [word], "c": {"d": word}})
    assert parsed(edit.text_of(document))["runs"]["third"] == {"a": word, "b": [word], "c": {"d": word}}


def test_the_diff_names_the_file():
    assert edit.diff("a: 1\n", "a: 2\n") == "--- params.yaml\n+++ params.yaml\n@@ -1 +1 @@\n-a: 1\n+a: 2\n"
    assert edit.diff(TEXT, TEXT) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "is not valid YAML"),
        ("- a\n", "is not a mapping; write it as section: lines"),
        ("a: 1\na: 2\n", "is not valid YAML"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        edit.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        edit.load(tmp_path / "absent.yaml")


def test_what_is_no_section_is_refused():
    document = edit.CommentedMap({"runs": [1]})
    with pytest.raises(ConfigError, match=r"params.yaml: runs: \[1\] is not a mapping"):
        edit.set_entry(document, ("runs", "third"), {})
