"""The commands that use trained models on studies from anywhere.

Part of ``csfd``; apart from the commands that fill a store.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csfd_core.errors import SourceError
from csfd_core.ingest.outcomes import Outcome
from csfd_core.text import count

if TYPE_CHECKING:
    from csfd_core.inference.predict import PredictedStudy
    from csfd_core.inference.segment import SegmentedStudy

InputArgument = Annotated[
    str, typer.Argument(metavar="INPUT", help="DICOM folder, zip file or source.")
]
_SEGMENTATIONS = "builtin; store or fold_0 for one trained in CSFD_STORE; or a folder."
SegmentationOption = Annotated[str, typer.Option(metavar="ALIAS", help=_SEGMENTATIONS)]

EveryVolumeOption = Annotated[
    bool,
    typer.Option(
        "--every-volume",
        help="Also the further axial volumes of a study, as of other kernels: "
        "UID-2.json and so on. Else the thinnest that covers the neck.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``csfd``."""
    app.command()(segment)
    app.command()(predict)


def segment(
    source: InputArgument,
    out: Annotated[Path, typer.Option(help="Folder for masks and reports.")],
    model: SegmentationOption = "builtin",
    every_volume: EveryVolumeOption = False,
) -> None:
    """Label the vertebrae C1 to C7: one NIfTI mask and one JSON per study.

    Needs no store and no Dagster. Studies that cannot be trusted are named and left
    out; research software, not for clinical use.

    Example: `csfd segment data/source --out masks`
    """
    from csfd_core.cli.stores import open_stores
    from csfd_core.inference.reading import reading_ahead
    from csfd_core.inference.segment import segment_input
    from csfd_core.segmentation.bundle import BUILTIN
    from csfd_core.segmentation.model_store import open_model
    from csfd_core.segmentation.predict import VertebraPredictor
    from csfd_core.settings import Settings
    from csfd_core.store.locations import Location

    told = _Tally(done_by=Outcome.SEGMENTED)
    with reading_ahead(every_volume=every_volume) as reading:
        location = Settings.read().store
        needs_store = model != BUILTIN
        store = open_stores(location).root if needs_store else Location(location)
        predictor = VertebraPredictor(open_model(model, store))
        for study in segment_input(source, out, predictor, typer.echo, reading):
            found = ", ".join(study.levels) or "no vertebra"
            told.add(study, f"{found} ({study.seconds:.1f} s)")
    typer.echo(
        f"{told.counted(every_volume)} segmented, {told.refused} left out, in {out}."
    )
    told.require_done("No study could be segmented.")


def predict(
    source: InputArgument,
    out: Annotated[Path, typer.Option(help="Folder for one JSON per study.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="ALIAS",
            help="champion, challenger or a version (v3) of CSFD_STORE; best of its "
            "comparison; basic_cnn, triplanar_cnn, inception_v3, resnet50 or "
            "efficientnet_b5; general: the one that comes with csfd, and the default "
            "where nothing was trained.",
        ),
    ] = "champion",
    segmentation: Annotated[
        str | None,
        typer.Option(
            metavar="ALIAS",
            help=_SEGMENTATIONS,
            show_default="store where it has one, else builtin",
        ),
    ] = None,
    every_volume: EveryVolumeOption = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also one page per study, UID.html, with its pictures inside.",
        ),
    ] = False,
    heatmaps: Annotated[
        bool,
        typer.Option(
            "--heatmaps",
            help="Also what the classifier looked at, UID_heatmap.nii.gz, in the grid "
            "of the slices.",
        ),
    ] = False,
) -> None:
    """Say how likely each of C1 to C7 is fractured: one JSON per study, and a table.

    Reads DICOM, finds the vertebrae, and judges each with a classifier: the champion of
    the store, the best of its comparison while there is none, or the general classifier
    that comes with csfd where nothing was trained. Needs no store for the last.
    A level that the scan does not show is not assessed. Studies that cannot be trusted
    are named and left out; research software, not for clinical use.

    Example: `csfd predict data/source --out predictions --report`
    """
    from csfd_core.classification.config import GENERAL
    from csfd_core.cli.console import print_predictions
    from csfd_core.cli.stores import open_stores
    from csfd_core.inference.heatmap import write_heatmap
    from csfd_core.inference.predict import predict_input
    from csfd_core.inference.reading import reading_ahead
    from csfd_core.registry.serving import open_ensemble
    from csfd_core.reports.prediction.page import write_prediction_page
    from csfd_core.segmentation.bundle import BUILTIN
    from csfd_core.segmentation.model_store import open_model
    from csfd_core.segmentation.predict import VertebraPredictor
    from csfd_core.settings import Settings

    stores = open_stores(Settings.read().store)
    told = _Tally(done_by=Outcome.PREDICTED)
    probabilities, unlike = {}, {}
    wanted = {write_heatmap: heatmaps, write_prediction_page: report}
    beside = [write for write, is_wanted in wanted.items() if is_wanted]
    with reading_ahead(every_volume=every_volume) as reading:
        ensemble = open_ensemble(stores, model)
        if ensemble.notice:
            typer.echo(ensemble.notice, err=True)
        if segmentation is None and model == GENERAL:
            segmentation = BUILTIN
        predictor = VertebraPredictor(open_model(segmentation, stores.root))
        for study in predict_input(
            source, out, predictor, ensemble, typer.echo, reading, beside=beside
        ):
            told.add(study, f"done in {study.seconds:.1f} s")
            if study.probabilities:
                probabilities[study.name] = study.probabilities
            if study.unlike is not None:
                unlike[study.name] = study.unlike
    print_predictions(probabilities, ensemble.thresholds, unlike)
    empty = f"{told.empty} without a vertebra, " if told.empty else ""
    typer.echo(
        f"{told.counted(every_volume)} predicted by {ensemble.title} (trained on "
        f"{ensemble.data_kind} data), {empty}{told.refused} left out, in {out}. Not "
        "for clinical use."
    )
    told.require_done("No study could be predicted.")


@dataclass
class _Tally:
    """Tells what became of each study, and counts them."""

    done_by: Outcome
    done: int = 0
    empty: int = 0  # results without a number
    refused: int = 0
    failed: int = 0

    def add(self, study: "SegmentedStudy | PredictedStudy", told: str) -> None:
        """Tell of a study; ``told`` is what to say where it was done."""
        if study.action in (self.done_by, Outcome.NOT_ASSESSED):
            self.done += study.action == self.done_by
            self.empty += study.action == Outcome.NOT_ASSESSED
            typer.echo(f"{study.name}: {told}")
            for flag in study.flags:
                typer.echo(f"  look at it: {flag}")
        else:
            self.refused += 1
            self.failed += study.action == Outcome.FAILED
            typer.echo(f"{study.name}: left out. {study.message}")
        for note in study.notes:
            typer.echo(f"  note: {note}")

    def counted(self, every_volume: bool) -> str:
        """Return how many were done, as what they are."""
        return count(self.done, "volume" if every_volume else "study")

    def require_done(self, nothing: str) -> None:
        """End with status 1 where nothing was done, or a study could not be read.

        Raises:
            SourceError: With what to say.
        """
        if self.refused and not self.done + self.empty:
            raise SourceError(nothing)
        if self.failed:
            studies = count(self.failed, "study")
            raise SourceError(f"{studies} could not be read; the others are done.")
