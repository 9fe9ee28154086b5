"""Where an adopted network comes from: the tags that lead from its run to its trial's."""

from deepsky.tracking.studies import find_trial_run


def origin_tags(experiment: str, study: str, trial: int) -> dict[str, str]:
    """Return the tags of a run whose parameters a search found.

    Args:
        experiment: MLflow experiment of the run; the studies stand in EXPERIMENT-tuning.
        study: name of the search.
        trial: its number in the study.

    Returns:
        ``deepsky.study``, ``deepsky.trial`` and, where this store holds the trial's run, ``deepsky.trial_run``.

    Raises:
        TrackingError: the store cannot be used.
    """
    found = find_trial_run(f"{experiment}-tuning", study, trial)
    tags = {"deepsky.study": study, "deepsky.trial": str(trial)}
    return tags | ({"deepsky.trial_run": found} if found else {})
