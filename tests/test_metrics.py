import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_recall_fscore_support, root_mean_squared_error

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, compose, places
from deepsky.errors import DataError
from deepsky.metrics import (
    confused_pairs,
    one_sidedness,
    score,
    score_fractions,
)

CLASSES = ("GALAXY", "QSO", "STAR")
# Six rows counted by hand: GALAXY 2 of 3 right (one called STAR), QSO 1 of 2 (one called GALAXY), STAR 1 of 1.
LABELS = ("GALAXY", "GALAXY", "GALAXY", "QSO", "QSO", "STAR")
ANSWERS = (0, 0, 2, 1, 0, 2)


def _probabilities(answers=ANSWERS):
    table = np.full((len(answers), 3), 0.1)
    table[np.arange(len(answers)), answers] = 0.8
    return table


def test_scores_equal_a_count_by_hand():
    scores = score(LABELS, _probabilities(), CLASSES, groups=LABELS, majority_class="GALAXY", where="here")
    assert scores.n == 6
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.baseline == pytest.approx(3 / 6)
    np.testing.assert_array_equal(scores.confusion, [[2, 0, 1], [1, 1, 0], [0, 0, 1]])
    assert scores.per_class["GALAXY"].precision == pytest.approx(2 / 3)
    assert scores.per_class["QSO"].recall == pytest.approx(1 / 2)
    assert scores.per_class["STAR"].f1 == pytest.approx(2 / 3)
    assert [c.support for c in scores.per_class.values()] == [3, 2, 1]
    assert scores.f1_macro == pytest.approx(2 / 3)
    assert scores.f1_weighted == pytest.approx((3 * 2 / 3 + 2 * 2 / 3 + 2 / 3) / 6)


def test_class_that_never_occurs_scores_zero_but_does_not_lower_macro_f1():
    scores = score(
        ("GALAXY", "QSO"), _probabilities((0, 1)), CLASSES, groups=("GALAXY", "QSO"), majority_class="QSO", where="here"
    )
    assert (scores.per_class["STAR"].f1, scores.per_class["STAR"].support) == (0, 0)
    assert scores.f1_macro == 1
    assert scores.confusion.shape == (3, 3)


def test_order_of_classes_names_the_columns():
    turned = score(
        LABELS, _probabilities()[:, ::-1], CLASSES[::-1], groups=LABELS, majority_class="GALAXY", where="here"
    )
    assert turned.accuracy == pytest.approx(4 / 6)
    assert turned.per_class["GALAXY"].support == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.__setitem__((2, 1), np.nan), "prediction 3 holds a value that is not a number"),
        (lambda p: p.__setitem__((2, 1), np.inf), "not a number"),
        (lambda p: p.__setitem__((4, 0), 0.5), "prediction 5"),
        (lambda p: p.__setitem__(0, [1.4, -0.2, -0.2]), "is no probability"),
    ],
)
def test_refuses_what_is_no_probability(change, words):
    table = _probabilities()
    change(table)
    with pytest.raises(DataError, match=words):
        score(LABELS, table, CLASSES, groups=LABELS, majority_class="GALAXY", where="predictions.csv")


@pytest.mark.parametrize(
    ("labels", "table", "words"),
    [
        (("GALAXY", "COMET"), _probabilities((0, 1)), "unknown class 'COMET'"),
        (LABELS, _probabilities()[:, :2], r"\(6, 2\), not \(6, 3\)"),
        (LABELS, _probabilities()[:5], r"\(5, 3\), not \(6, 3\)"),
        ((), np.zeros((0, 3)), "no rows"),
    ],
)
def test_refuses_what_does_not_fit(labels, table, words):
    with pytest.raises(DataError, match=words):
        score(labels, table, CLASSES, groups=labels, majority_class="GALAXY", where="predictions.csv")


def test_averages_and_loss_are_those_of_scikit_learn():
    table = _probabilities()
    scores = score(LABELS, table, CLASSES, groups=LABELS, majority_class="GALAXY", where="here")
    answers = [CLASSES[code] for code in ANSWERS]
    for average in ("macro", "weighted"):
        wanted = precision_recall_fscore_support(LABELS, answers, average=average)[:3]
        found = [getattr(scores, f"{name}_{average}") for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(wanted)
    assert scores.loss == pytest.approx(log_loss(LABELS, table, labels=list(CLASSES)))


def test_loss_of_an_impossible_answer_is_clipped():
    scores = score(("QSO",), [[1.0, 0.0, 0.0]], CLASSES, groups=("QSO",), majority_class="QSO", where="here")
    assert scores.loss == pytest.approx(-np.log(1e-7))


def test_confused_pairs_are_sorted_and_counted():
    table = confused_pairs(np.array([[5, 3, 0], [3, 1, 0], [0, 4, 0]]), CLASSES)
    assert table[["true", "predicted", "n"]].to_numpy().tolist() == [
        ["STAR", "QSO", 4], ["QSO", "GALAXY", 3], ["GALAXY", "QSO", 3],
    ]  # fmt: skip
    assert table["share"].tolist() == [1.0, 0.75, 0.375]
    assert confused_pairs(np.diag([3, 0, 2]), CLASSES).empty


# ---- vote fractions ----


def _fractions(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return compose(np.concatenate([rng.dirichlet(np.ones(len(q.answers)), n) for q in QUESTIONS], axis=1))


def test_rmse_is_over_all_values_and_per_question():
    truth, predicted = _fractions(), _fractions(seed=1)
    scores = score_fractions(truth, predicted, truth.mean(axis=0), groups=range(30), where="here")
    assert scores.rmse == pytest.approx(root_mean_squared_error(truth.ravel(), predicted.ravel()))
    assert scores.loss == pytest.approx(scores.rmse**2)
    columns = places(QUESTIONS[6])
    assert scores.per_question[7] == pytest.approx(
        root_mean_squared_error(truth[:, columns].ravel(), predicted[:, columns].ravel())
    )
    assert scores.per_answer["Class11.6"] == pytest.approx(root_mean_squared_error(truth[:, 36], predicted[:, 36]))
    assert list(scores.per_answer) == list(COLUMNS)
    assert scores.baseline == pytest.approx(truth.std(axis=0).__pow__(2).mean() ** 0.5)
    assert scores.rmse_low < scores.rmse < scores.rmse_high


def test_tree_sum_error_is_the_greatest_one():
    truth = _fractions()
    assert score_fractions(truth, truth, truth[0], groups=range(30), where="here").tree_sum_error < 1e-12
    broken = truth.copy()
    broken[3, places(QUESTIONS[9]).start] += 0.03
    broken[4, places(QUESTIONS[5]).start] -= 0.01
    assert score_fractions(
        truth, np.clip(broken, 0, 1), truth[0], groups=range(30), where="here"
    ).tree_sum_error == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.__setitem__((2, 1), np.nan), "Class1.2 of prediction 3 is nan, no fraction"),
        (lambda t: t.__setitem__((0, 36), 1.01), "Class11.6 of prediction 1 is 1.01, no fraction"),
        (lambda t: t.__setitem__((5, 0), -0.2), "no fraction"),
    ],
)
def test_refuses_what_is_no_fraction(change, words):
    table = _fractions()
    change(table)
    with pytest.raises(DataError, match=words):
        score_fractions(_fractions(), table, table[0], groups=range(30), where="predictions.csv")


def test_refuses_fractions_that_do_not_fit():
    truth = _fractions()
    for other, words in ((truth[:5], r"\(5, 37\)"), (truth[:, :36], r"\(30, 36\)"), (truth[:0], "no rows")):
        with pytest.raises(DataError, match=words):
            score_fractions(truth, other, truth[0], groups=range(30), where="predictions.csv")


# ---- answers that leave classes out ----


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        ([[40, 0, 0], [40, 0, 0], [38, 0, 2]], "collapsed: answers a to 98% of the objects"),
        ([[40, 0, 0], [38, 1, 1], [36, 2, 2]], ""),  # 95 % are not more than 95 %
        ([[190, 0, 0], [10, 0, 0], [0, 0, 0]], "never says b"),  # it is a, nearly always
        ([[190, 0, 0], [9, 0, 0], [0, 0, 0]], ""),  # too few to tell
        ([[30, 0, 0], [30, 0, 10], [0, 0, 30]], "never says b"),
        ([[30, 0, 0], [20, 0, 20], [30, 0, 10]], "never says b"),
        ([[70, 0, 0], [15, 0, 0], [15, 0, 0]], "collapsed: answers a to 100% of the objects"),
        ([[40, 1, 1], [1, 40, 1], [1, 1, 40]], ""),
    ],
)
def test_one_sided_answers_are_told(confusion, said):
    assert one_sidedness(np.array(confusion), ["a", "b", "c"]) == said


def test_the_network_of_a_study_that_gave_one_answer_would_have_been_told():
    """Validation accuracy stood at 0.3650 in all epochs: the share of one of three classes."""
    counts = np.array([5475, 4700, 4825])
    confusion = np.stack([counts, np.zeros(3, int), np.zeros(3, int)], axis=1)
    assert one_sidedness(confusion, ["GALAXY", "QSO", "STAR"]).startswith("collapsed: answers GALAXY")
