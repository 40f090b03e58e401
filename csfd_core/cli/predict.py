"""The commands that use trained models on studies from anywhere.

Part of ``csfd``; apart from the commands that fill a store.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csfd_core.errors import SourceError
from csfd_core.ingest.outcomes import Outcome
from csfd_core.text import count

if TYPE_CHECKING:
    from csfd_core.inference.predict import PredictedStudy

InputArgument = Annotated[
    str, typer.Argument(metavar="INPUT", help="DICOM folder, zip file or source.")
]
SegmentationOption = Annotated[
    str,
    typer.Option(
        metavar="ALIAS",
        help="builtin; store or fold_0 for one trained in CSFD_STORE; or a folder.",
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
) -> None:
    """Label the vertebrae C1 to C7: one NIfTI mask and one JSON per study.

    Needs no store and no Dagster. Studies that cannot be trusted are named and left
    out; research software, not for clinical use.

    Example: `csfd segment data/source --out masks`
    """
    from csfd_core.inference.segment import segment_input
    from csfd_core.segmentation.model_store import open_model
    from csfd_core.segmentation.predict import VertebraPredictor
    from csfd_core.settings import Settings
    from csfd_core.store.locations import Location

    store = Location(Settings.read().store)
    predictor = VertebraPredictor(open_model(model, store))
    done = refused = failed = 0
    for study in segment_input(source, out, predictor, typer.echo):
        if study.action == Outcome.SEGMENTED:
            done += 1
            found = ", ".join(study.levels) or "no vertebra"
            typer.echo(f"{study.study_uid}: {found} ({study.seconds:.1f} s)")
            for flag in study.flags:
                typer.echo(f"  look at it: {flag}")
        else:
            refused += 1
            failed += study.action == Outcome.FAILED
            typer.echo(f"{study.study_uid}: left out. {study.message}")
        for note in study.notes:
            typer.echo(f"  note: {note}")
    typer.echo(f"{count(done, 'study')} segmented, {refused} left out, in {out}.")
    if refused and not done:
        raise SourceError("No study could be segmented.")
    _require_none_failed(failed)


def predict(
    source: InputArgument,
    out: Annotated[Path, typer.Option(help="Folder for one JSON per study.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="ALIAS",
            help="champion, challenger or a version (v3) of CSFD_STORE; best of its "
            "comparison; or basic_cnn, inception_v3, resnet50, efficientnet_b5.",
        ),
    ] = "champion",
    segmentation: SegmentationOption = "store",
) -> None:
    """Say how likely each of C1 to C7 is fractured: one JSON per study, and a table.

    Reads DICOM, finds the vertebrae, and judges each with a classifier that was trained
    in the store: the champion, or the best of the comparison while there is none.
    Studies that cannot be trusted are named and left out; research software, not for
    clinical use.

    Example: `csfd predict data/source --out predictions`
    """
    from csfd_core.cli.console import print_predictions
    from csfd_core.cli.stores import open_stores
    from csfd_core.inference.predict import predict_input
    from csfd_core.registry.serving import open_ensemble
    from csfd_core.segmentation.model_store import open_model
    from csfd_core.segmentation.predict import VertebraPredictor
    from csfd_core.settings import Settings

    stores = open_stores(Settings.read().store)
    ensemble = open_ensemble(stores, model)
    if ensemble.notice:
        typer.echo(ensemble.notice, err=True)
    predictor = VertebraPredictor(open_model(segmentation, stores.root))
    done: list[PredictedStudy] = []
    refused = failed = 0
    for study in predict_input(source, out, predictor, ensemble, typer.echo):
        if study.action == Outcome.PREDICTED:
            done.append(study)
            typer.echo(f"{study.study_uid}: done in {study.seconds:.1f} s")
            for flag in study.flags:
                typer.echo(f"  look at it: {flag}")
        else:
            refused += 1
            failed += study.action == Outcome.FAILED
            typer.echo(f"{study.study_uid}: left out. {study.message}")
        for note in study.notes:
            typer.echo(f"  note: {note}")
    print_predictions(
        {study.study_uid: study.probabilities for study in done}, ensemble.thresholds
    )
    typer.echo(
        f"{count(len(done), 'study')} predicted by {ensemble.title} (trained on "
        f"{ensemble.data_kind} data), {refused} left out, in {out}. Not for clinical "
        "use."
    )
    if refused and not done:
        raise SourceError("No study could be predicted.")
    _require_none_failed(failed)


def _require_none_failed(failed: int) -> None:
    """End with status 1 where a study could not be read at all; the others are done."""
    if failed:
        told = count(failed, "study")
        raise SourceError(f"{told} could not be read; the others are done.")
