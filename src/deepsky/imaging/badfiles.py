"""What to do with a file that cannot be used: stop at it, or leave it out and say so."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from deepsky.errors import ConfigError, DataError

OnBadFile = Literal["stop", "skip"]


@dataclass
class BadFiles:
    """The bad files of one stage.

    Attributes:
        policy: ``stop`` raises the first error, ``skip`` collects them.
        skipped: (file, reason) of everything left out so far.
    """

    policy: OnBadFile
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.policy not in get_args(OnBadFile):
            raise ConfigError("params.yaml: on_bad_file", f"{self.policy!r} is unknown", "choose stop or skip")

    def meet(self, error: DataError) -> None:
        """Raise ``error`` under ``stop``; note it under ``skip``."""
        if self.policy == "stop":
            raise error
        self.skipped.append((error.where, error.problem))

    def refuse_if_nothing_left(self, n_left: int, what: object) -> None:
        """Raise when skipping has left no object.

        Raises:
            DataError: names the first of the skipped files.
        """
        if not n_left:
            first = f" (the first: {self.skipped[0][0]}: {self.skipped[0][1]})" if self.skipped else ""
            raise DataError(what, f"every object was skipped{first}", "mend the files; on_bad_file: stop shows each")
