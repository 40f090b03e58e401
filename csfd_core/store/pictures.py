"""Pictures beside the data: what a step shows of a study, or of all of them.

``pictures/<asset>/<study_uid>.jpg`` is what the step of that name last showed of a
study, ``pictures/<asset>/<name>.png`` what it showed of all. They lie in the store, not
in Dagster's history, so that who may not see the store does not see them either, and
withdrawing a study takes its pictures with it.
"""

from dataclasses import dataclass

from csfd_core.store.locations import Location
from csfd_core.store.paths import PICTURES, of_study


@dataclass(frozen=True, slots=True)
class PictureStore:
    """Pictures under one store location."""

    location: Location

    def path(self, asset: str, study_uid: str) -> str:
        """Return the path of a study's picture, relative to the store.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        return of_study(f"{PICTURES}/{asset}", study_uid, ".jpg")

    def write(self, asset: str, study_uid: str, jpeg: bytes) -> str:
        """Replace the picture of a study; return its path, relative to the store."""
        path = self.path(asset, study_uid)
        self._write(path, jpeg)
        return path

    def write_chart(self, asset: str, name: str, png: bytes) -> str:
        """Replace a chart of all studies; return its path, relative to the store."""
        path = f"{PICTURES}/{asset}/{name}.png"
        self._write(path, png)
        return path

    def paths_of(self, study_uid: str) -> list[str]:
        """Return the pictures that there are of a study, sorted.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        paths = (self.path(a, study_uid) for a in self.location.folders(PICTURES))
        return [path for path in paths if self.location.exists(path)]

    def _write(self, path: str, content: bytes) -> None:
        """Write what has changed: a step that finds all unchanged changes nothing."""
        if self.location.read_if_there(path) != content:
            self.location.write(path, content)
