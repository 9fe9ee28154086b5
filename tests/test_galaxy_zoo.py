import decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.errors import DataError
from deepsky.formats.galaxy_zoo_challenge import CLASSES, clean_classes
from deepsky.formats.solutions import SUM_TOLERANCE, read_solutions
from tests.galaxy_zoo_files import fractions_of, solutions_of

IDS = [100023, 100008, 999967, 100090, 100053, 100078]
KINDS = [*CLASSES, "none"]


def table():
    return solutions_of(IDS, KINDS)


def write(folder, solutions):
    path = folder / "solutions.csv"
    solutions.to_csv(path, index=False)
    return path


def spark(folder, solutions, n_parts=3):
    """Parts as a Spark cluster writes them."""
    folder.mkdir()
    frame = pa.Table.from_pandas(solutions, preserve_index=False)
    size = -(-len(solutions) // n_parts)
    for number in range(n_parts):
        name = f"part-{number:05d}-3b1f5f0e-c000.snappy.parquet"
        pq.write_table(frame.slice(number * size, size), folder / name, compression="snappy")
        (folder / f".{name}.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").touch()
    return folder


def assert_refused(path, message):
    with pytest.raises(DataError, match=message) as error:
        read_solutions(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


# ---- the table ----


def test_forms_of_the_table_agree(tmp_path):
    solutions = table()
    paths = [write(tmp_path, solutions), spark(tmp_path / "solutions.parquet", solutions)]
    paths.append(tmp_path / "one.parquet")
    narrow = solutions.astype(dict.fromkeys(COLUMNS, np.float32)).astype({"GalaxyID": np.int32})
    narrow[["Class7.2", "GalaxyID", *[name for name in COLUMNS if name != "Class7.2"]]].to_parquet(paths[-1])
    for path in paths:
        read = read_solutions(path)
        assert (read.ids.dtype, read.fractions.dtype) == (np.int64, np.float32)
        assert read.ids.tolist() == IDS
        assert np.allclose(read.fractions, solutions[list(COLUMNS)], rtol=0, atol=1e-7)


def test_decimals_and_text_of_a_cluster_are_numbers(tmp_path):
    solutions = table()
    solutions["Class1.1"] = [decimal.Decimal(f"{value:.6f}") for value in solutions["Class1.1"]]
    solutions["GalaxyID"] = solutions["GalaxyID"].astype(str)
    read = read_solutions(spark(tmp_path / "solutions.parquet", solutions))
    assert read.ids.tolist() == IDS
    assert read.fractions[0, 0] == np.float32(0.9)


def test_windows_text_and_an_open_end_are_read(tmp_path):
    path = tmp_path / "solutions.csv"
    text = table().to_csv(index=False, lineterminator="\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    assert read_solutions(path).ids.tolist() == IDS
    path.write_text(text.rstrip())
    assert read_solutions(path).ids.tolist() == IDS


def test_many_batches_keep_their_order(tmp_path):
    n_rows = 40_000
    solutions = table().iloc[np.zeros(n_rows, int)].reset_index(drop=True)
    solutions["GalaxyID"] = np.random.default_rng(1).permutation(n_rows) + 100_000
    solutions["Class6.1"] = 0.0  # then so are all of question 8
    solutions[[f"Class8.{place}" for place in range(1, 8)]] = 0.0
    solutions["Class6.2"] = 1.0
    pyarrow.csv.write_csv(pa.Table.from_pandas(solutions), tmp_path / "solutions.csv")
    for path in (tmp_path / "solutions.csv", spark(tmp_path / "solutions.parquet", solutions, n_parts=2)):
        assert np.array_equal(read_solutions(path).ids, solutions["GalaxyID"])


def changed(column, value, row=2):
    solutions = table()
    solutions[column] = solutions[column].astype(object)
    solutions.loc[row, column] = value
    return solutions


BAD = {
    "missing": (lambda: table().drop(columns=["Class3.1", "Class11.6"]), r"lacks columns Class3.1, Class11.6"),
    "no id": (lambda: table().drop(columns="GalaxyID"), r"lacks column GalaxyID; .* with GalaxyID and 37 fractions"),
    "extra": (lambda: table().assign(Class12=0.5), r"has the unknown column Class12"),
    "another table": (
        lambda: table()[["GalaxyID"]],
        r"lacks columns Class1.1, Class1.2, Class1.3, Class2.1 and 33 more",
    ),
    "above": (lambda: changed("Class6.1", 1.25), r"galaxy 999967 has Class6.1 1.25, which is outside 0 to 1"),
    "below": (lambda: changed("Class9.2", -1e-4), r"galaxy 999967 has Class9.2 -0.0001, which is outside"),
    "infinite": (lambda: changed("Class9.2", "inf"), r"galaxy 999967 has Class9.2 inf, which is outside"),
    "nan": (lambda: changed("Class9.2", "nan"), r"1 cells without a number in column Class9.2"),
    "empty": (lambda: changed("Class9.2", None), r"1 cells without a number in column Class9.2"),
    "word": (lambda: changed("Class9.2", "many"), r"cannot be read .*column 28: Row #4: .*'many'"),
    "tree": (lambda: changed("Class6.2", 0.2), r"galaxy 999967 breaks the decision tree: Class6.1 to Class6.2 sum to"),
    "child": (
        lambda: changed("Class7.3", 0.0),
        r"galaxy 999967 .*: Class7.1 to Class7.3 sum to 0\.\d+, not to 0.900000 \(Class1.1\)",
    ),
    "swapped": (
        lambda: table().rename(columns={"Class7.1": "Class8.1", "Class8.1": "Class7.1"}),
        "galaxy 100023 breaks the decision tree: Class7.1",
    ),
    "rounded id": (lambda: changed("GalaxyID", "1.2E+05"), r"cannot be read .*1.2E\+05"),
    "id with a fraction": (lambda: changed("GalaxyID", "100023.5"), r"cannot be read .*100023.5"),
    "id twice": (lambda: changed("GalaxyID", 100023), r"galaxy 100023 occurs more than once"),
    "no id in a row": (lambda: changed("GalaxyID", None), r"1 cells without a number in column GalaxyID"),
    "no rows": (lambda: table().iloc[:0], r"holds no rows"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_tables_are_refused(tmp_path, kind):
    make, message = BAD[kind]
    assert_refused(write(tmp_path, make()), message)


def test_bad_parquet_is_refused(tmp_path):
    assert_refused(
        spark(tmp_path / "a.parquet", table().assign(GalaxyID=[*IDS[:5], 7.5])), "GalaxyID does not hold int64 numbers"
    )
    assert_refused(spark(tmp_path / "b.parquet", changed("Class6.2", 0.2).astype(float)), "breaks the decision tree")
    unfinished = spark(tmp_path / "c.parquet", table())
    (unfinished / "_temporary/0").mkdir(parents=True)
    assert_refused(unfinished, "holds Spark's _temporary: the job .* has not ended")
    cut = next(spark(tmp_path / "d.parquet", table()).glob("part-00001*"))
    cut.write_bytes(cut.read_bytes()[:-50])
    assert_refused(tmp_path / "d.parquet", "cannot be read .*part-00001")
    twice = pa.Table.from_pandas(table(), preserve_index=False).append_column("Class1.1", [[0.9] * 6])
    pq.write_table(twice, tmp_path / "twice.parquet")
    assert_refused(tmp_path / "twice.parquet", "duplicate field names")
    (tmp_path / "e.parquet").mkdir()
    assert_refused(tmp_path / "e.parquet", "holds no parts")


@pytest.mark.parametrize("place", [0, 1])
def test_each_part_has_the_same_columns(tmp_path, place):
    path = spark(tmp_path / "solutions.parquet", table(), n_parts=2)
    part = sorted(path.glob("part-*"))[place]
    whole = pq.read_table(part)
    for changed_part, message in (
        (whole.drop_columns(["Class3.1"]), "lacks column Class3.1; take the file"),
        (whole.append_column("weight", pa.array([1.0] * len(whole))), "has the unknown column weight; take out"),
        (whole.rename_columns(["id", *whole.column_names[1:]]), "lacks column GalaxyID"),
    ):
        pq.write_table(changed_part, part)
        with pytest.raises(DataError) as error:
            read_solutions(path)
        assert str(error.value).startswith(f"{part}: {message}")
    pq.write_table(whole.select(whole.column_names[::-1]), part)  # their order is free
    assert read_solutions(path).ids.tolist() == IDS


def test_ragged_and_foreign_files_are_refused(tmp_path):
    path = write(tmp_path, table())
    path.write_text(path.read_text() + "1,2,3\n")
    assert_refused(path, r"cannot be read .*Expected 38 columns, got 3: 1,2,3\)")
    path.write_bytes(b"")
    assert_refused(path, "cannot be read .*Empty CSV file")
    path.write_bytes(b"PK\x03\x04\x00\xff\n")
    assert_refused(path, "cannot be read")
    assert_refused(tmp_path / "absent.csv", "cannot be read")
    header, row = table().to_csv(index=False).splitlines()[:2]
    path.write_text(f"{header},Class1.1\n{row},0.9\n")
    assert_refused(path, "cannot be read .*multiple columns named Class1.1")


def test_tolerance_lets_rounding_pass(tmp_path):
    rounded = table().round(dict.fromkeys(COLUMNS, 4))
    assert read_solutions(write(tmp_path, rounded)).ids.tolist() == IDS
    whole = table()
    whole.loc[0, "Class6.2"] += 0.5 * SUM_TOLERANCE
    read_solutions(write(tmp_path, whole))
    whole.loc[0, "Class6.2"] += SUM_TOLERANCE
    assert_refused(write(tmp_path, whole), "galaxy 100023 breaks the decision tree: Class6.1 to Class6.2")


# ---- the five clean classes ----


def test_clean_classes():
    fractions = fractions_of(KINDS).astype(np.float32)
    assert clean_classes(fractions).tolist() == [0, 1, 2, 3, 4, -1]


@pytest.mark.parametrize(
    ("code", "published"),
    list(
        enumerate(
            [
                {"Class1.1": 0.469, "Class7.1": 0.50},
                {"Class1.1": 0.469, "Class7.2": 0.50},
                {"Class1.1": 0.469, "Class7.3": 0.50},
                {"Class1.2": 0.430, "Class2.1": 0.602},
                {"Class1.2": 0.430, "Class2.2": 0.715, "Class4.1": 0.619},
            ]
        )
    ),
    ids=CLASSES,
)
def test_a_fraction_at_its_threshold_is_enough(code, published):
    fractions = np.zeros((1, len(COLUMNS)), np.float32)
    for column, least in published.items():
        fractions[0, COLUMNS.index(column)] = least
    assert clean_classes(fractions).tolist() == [code]
    for column in published:
        below = fractions.copy()
        below[0, COLUMNS.index(column)] -= 1e-6
        assert clean_classes(below).tolist() == [-1], column


def test_half_round_and_half_in_between_is_neither():
    fractions = np.zeros((1, len(COLUMNS)), np.float32)
    fractions[0, [COLUMNS.index(name) for name in ("Class1.1", "Class7.1", "Class7.2")]] = (1, 0.5, 0.5)
    assert clean_classes(fractions).tolist() == [-1]
