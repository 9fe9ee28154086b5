"""The errors a user can mend. Each is one line: where, what is wrong, the remedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class DeepSkyError(Exception):
    """Base of every error that the command line reports as one line with exit code 1."""

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        """Compose the line.

        Args:
            where: the file, key, column or object the problem stands in.
            problem: what is wrong, with the offending value.
            remedy: what the user can do about it.
        """
        self.where, self.problem, self.remedy = str(where), problem, remedy
        line = "".join(letter if letter.isprintable() else " " for letter in f"{where}: {problem}; {remedy}")
        super().__init__(" ".join(line.split()))

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Travel between worker processes."""
        return type(self), (self.where, self.problem, self.remedy)


class ConfigError(DeepSkyError):
    """params.yaml or a command-line argument is wrong."""


class ConfigErrors(ConfigError):
    """All that is wrong with a file: a line each."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        """Join the lines.

        Args:
            errors: at least one.
        """
        super().__init__(errors[0].where, errors[0].problem, errors[0].remedy)
        self.errors = tuple(errors)
        self.args = ("\nerror: ".join(map(str, errors)),)

    def __reduce__(self) -> tuple[type, tuple[tuple[ConfigError, ...]]]:  # type: ignore[override]
        """Travel between worker processes."""
        return type(self), (self.errors,)


class DataError(DeepSkyError):
    """A file, image, catalogue or label table is wrong."""


@contextmanager
def about(name: object) -> Iterator[None]:
    """Let the line of a DataError begin with what it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error.where}", error.problem, error.remedy) from error


class WeightsError(DeepSkyError):
    """Pretrained weights are missing or do not fit the network."""


class TrackingError(DeepSkyError):
    """The MLflow store cannot be used."""


class UnreachableError(TrackingError):
    """The MLflow store does not answer now; later it may."""


class StudyError(DeepSkyError):
    """A study of a search cannot be used, or not with these parameters."""
