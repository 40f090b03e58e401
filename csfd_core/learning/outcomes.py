"""What came of a training: whether there was one, and why it ended."""

from enum import StrEnum


class TrainingOutcome(StrEnum):
    """What was done for a model that was asked for; recorded in MLflow and Dagster."""

    TRAINED = "trained"
    UNCHANGED = "unchanged"  # the store holds what a training would give
    TAKEN = "taken from csfd"  # nothing may be learnt from: the model that csfd brings


class StopReason(StrEnum):
    """Why a training ended; recorded with the model."""

    ALL_EPOCHS = "all_epochs"  # it went on to its last epoch
    NO_IMPROVEMENT = "no_improvement"  # in as many epochs as it was to wait
    NOT_A_NUMBER = "not_a_number"  # the loss of the epoch after those recorded
