"""The card of a trained model: what it was made from, and how its training went.

A card lies beside the weights and the other files of its training, and says which they
are: whoever reads a card finds what belongs to it, also while another training takes
its place (``learning.training_files``). It is written once and read for as long as the
weights are in use, by later versions too, so it names the version of its shape. Cards
of older shapes are brought into today's when they are read.
"""

import json
import math
import secrets
from abc import abstractmethod
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Final, Self

import pydantic

from csfd_core.errors import StoreError
from csfd_core.learning.loop import Monitor
from csfd_core.learning.outcomes import StopReason
from csfd_core.learning.splits import Split
from csfd_core.text import count


def _undefined_as_nan(value: object) -> object:
    return math.nan if value is None else value


_MARK: Final = r"([0-9]{8}T[0-9]{6}-[0-9a-f]{8})?"  # of a training; see new_mark
_MARK_TIME: Final = "%Y%m%dT%H%M%S"


def new_mark() -> str:
    """Return what no other training has in the names of its files; begins with UTC."""
    return f"{datetime.now(UTC):{_MARK_TIME}}-{secrets.token_hex(4)}"


def age_of(mark: str) -> float:
    """Return the seconds since a training wrote its files, by its mark.

    Raises:
        ValueError: If it is none.
    """
    written = datetime.strptime(mark.partition("-")[0], _MARK_TIME).replace(tzinfo=UTC)
    return (datetime.now(UTC) - written).total_seconds()


# JSON knows no NaN: what is undefined, such as an AUC of one class only, is null there.
Score = Annotated[float, pydantic.BeforeValidator(_undefined_as_nan)]


class ModelCard(pydantic.BaseModel):
    """What every trained model says of itself.

    Fields with a default may be missing in older cards.

    Attributes:
        schema_version: Of the shape of the card.
        model_id: Identity of the weights; of what they were trained from.
        inputs: Digest of all that the training was made from; empty: not known.
        fold: That was held out; ``None``: of no store's folds.
        history: A row per epoch: ``epoch`` (from 1), ``loss``, scores, ``seconds``.
        best_epoch: Whose weights were kept; 0: those that it started from.
        before: Scores of weights that it started from; empty: not measured.
        stopped: Why the training ended; ``None``: not known.
        code_version: Of the training.
        lock_sha256: Of the pinned versions that it was trained with.
        mlflow_run_id: Of the run that recorded the training; ``None``: not known.
        files_mark: In the names of the files that belong to the card; empty: they have
            none, as those of older cards and those that come with csfd.
    """

    model_config = pydantic.ConfigDict(frozen=True, allow_inf_nan=True)
    kind: ClassVar[str]  # as messages call it
    newest: ClassVar[int] = 2  # schema version; 1: before cards named it

    schema_version: int = newest
    model_id: str
    inputs: str = ""
    fold: int | None = None
    history: tuple[dict[str, Score], ...] = ()
    best_epoch: int = 0
    before: dict[str, Score] = {}
    stopped: StopReason | None = None
    code_version: str | None = None
    lock_sha256: str | None = None
    mlflow_run_id: str | None = None
    files_mark: Annotated[str, pydantic.Field(pattern=f"^{_MARK}$")] = ""

    def file_name(self, kind: str) -> str:
        """Return the name of a file of this training, beside the card.

        Args:
            kind: As it is called without a mark: ``weights.npz``.
        """
        path = PurePosixPath(kind)
        return (
            f"{path.stem}-{self.files_mark}{path.suffix}" if self.files_mark else kind
        )

    @abstractmethod
    def contents(self, split: Split) -> Mapping[str, Any]:
        """Return what was seen of each study of a split: identities of its content."""

    @property
    @abstractmethod
    def started_from(self) -> str | None:
        """Return the weights that the training started from."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings of the training as JSON values."""

    def studies(self, split: Split) -> Set[str]:
        """Return the studies that were used so."""
        return self.contents(split).keys()

    def splits_of(self, study_uid: str) -> list[Split]:
        """Return what a study was used for; []: it was not."""
        return [split for split in Split if study_uid in self.studies(split)]

    def unimproved(self, monitor: Monitor) -> str:
        """Say that no epoch was better than what it started from; empty: one was.

        Args:
            monitor: What its training was chosen by.
        """
        start = self.before.get(monitor.score, math.nan)
        ranked = [row for row in self.history if math.isfinite(monitor.rank(row))]
        if self.best_epoch or not ranked or not math.isfinite(start):
            return ""
        best = max(ranked, key=monitor.rank)[monitor.score]
        return (
            f"Training made it no better: {monitor.score} {start:.3f} before, "
            f"{best:.3f} at best in {count(len(self.history), 'epoch')}. What it "
            f"started from ({self.started_from}) is kept."
        )

    def to_json(self) -> bytes:
        """Return the card as strict JSON, its keys sorted."""
        values = json.loads(self.model_dump_json())
        text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False)
        return f"{text}\n".encode()

    @classmethod
    def from_json(cls, content: bytes | str, **location: Any) -> Self:  # noqa: ANN401
        """Return a card of today's or an older shape.

        Args:
            content: Of its file.
            location: Fields that follow from where it lies, for cards that lack them.

        Raises:
            StoreError: If it is no such card, or one of a newer csfd.
        """
        try:
            values = json.loads(content)
            version = int(values.get("schema_version", 1))
            if version > cls.newest:
                raise StoreError(
                    f"A card of {cls.kind} has the schema version {version}; this csfd "
                    f"reads up to {cls.newest}. Use the csfd that trained it."
                )
            if version < cls.newest:
                values = cls.upgraded(values) | {"schema_version": cls.newest}
            return cls.model_validate({**location, **values})
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise StoreError(
                f"This is no card of {cls.kind}: {_told(error)}. Train it again."
            ) from error

    @classmethod
    @abstractmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a card of an older schema version as they are now."""


def _told(error: Exception) -> str:
    """Say in one line what is wrong with a card."""
    if isinstance(error, pydantic.ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
