"""What a network answers about a dataset, and what may be done to the images that it sees."""

from collections.abc import Sequence

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import DatasetCard
from deepsky.errors import ConfigError
from deepsky.networks.augment import mirror_swaps
from deepsky.networks.heads import Answer, sigmoid_answer, softmax_answer, tree_answer
from deepsky.training.recipe import PLAIN, Recipe

# The numbers of test views that have mirror images and quarter turns among them, and how far any image may be turned.
MIRRORING, TURNING, TURN_DEG = (2, 8), (4, 8), 30.0


def answer_of(recipe: Recipe, card: DatasetCard) -> Answer:
    """Return the last layer that a run's network ends in.

    Raises:
        ConfigError: ``answer`` does not fit the dataset's target.
    """
    if card.target == "class":
        if recipe.answer != "softmax":
            raise ConfigError(
                f"a run of {recipe.dataset}", f"answer {recipe.answer} is for vote fractions", "set answer: softmax"
            )
        return softmax_answer(len(card.classes))
    if recipe.answer == "softmax":
        raise ConfigError(
            f"a run of {recipe.dataset}", "answer softmax is for classes", "set answer: tree or answer: sigmoid"
        )
    return tree_answer() if recipe.answer == "tree" else sigmoid_answer(len(COLUMNS))


def swaps_of(card: DatasetCard) -> Sequence[int]:
    """Return which place of the answer each place takes in a mirror image."""
    if card.target == "fractions":  # no question of the tree asks which way a galaxy turns
        return range(len(COLUMNS))
    return mirror_swaps(card.classes, card.mirrored)


def check_views(recipe: Recipe, card: DatasetCard) -> None:
    """Refuse views that show something else than the dataset's images do: a mirrored digit is none.

    Raises:
        ConfigError: the run mirrors or turns what must not be.
    """
    augment = PLAIN if recipe.of_head and not recipe.n_views else recipe.augment
    n_views, turn_deg = recipe.test_views, augment.rotation_deg
    for change, done, what, remedy in (
        ("mirror", augment.flip, "flip true", "set flip: false"),
        ("mirror", n_views in MIRRORING, f"test_views {n_views}", "set test_views: 1"),
        ("turn", turn_deg > TURN_DEG, f"rotation_deg {turn_deg:g}", f"set it to {TURN_DEG:g} or less"),
        ("turn", n_views in TURNING, f"test_views {n_views}", "set test_views: 1"),
    ):
        if done and change in card.refused:
            problem = f"{what} would {change} images that then no longer show what their labels say"
            raise ConfigError(f"a run of {recipe.dataset}", problem, remedy)
