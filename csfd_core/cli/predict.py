"""The commands that use trained models on studies from anywhere.

Part of ``csfd``; apart from the commands that fill a store.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from csfd_core.cli.tally import Tally
from csfd_core.ingest.outcomes import Outcome

InputArgument = Annotated[
    str, typer.Argument(metavar="INPUT", help="DICOM folder, zip file or source.")
]
_NAMED_PAGES = 3
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

AgainOption = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Make anew what is in OUT already, of the same files by the same "
        "model; else it is kept, so that a second call goes on.",
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
    again: AgainOption = False,
) -> None:
    """Label the vertebrae C1 to C7: one NIfTI mask and one JSON per study.

    Needs no store and no Dagster. Studies that cannot be trusted are named and left
    out; research software, not for clinical use.

    Example: `csfd segment data/source --out masks`
    """
    from csfd_core.cli.stores import open_stores
    from csfd_core.inference.inputs import require_there
    from csfd_core.inference.reading import reading_ahead
    from csfd_core.inference.segment import require_writable, segment_input
    from csfd_core.segmentation.bundle import BUILTIN
    from csfd_core.segmentation.model_store import open_model
    from csfd_core.segmentation.predict import VertebraPredictor
    from csfd_core.settings import Settings
    from csfd_core.store.locations import Location

    require_there(source)
    require_writable(out)
    told = Tally(done_by=Outcome.SEGMENTED)
    try:
        with reading_ahead(every_volume=every_volume) as reading:
            location = Settings.read().store
            needs_store = model != BUILTIN
            store = open_stores(location).root if needs_store else Location(location)
            predictor = VertebraPredictor(open_model(model, store))
            told.begun = time.monotonic()
            for study in segment_input(
                source, out, predictor, typer.echo, reading, again=again
            ):
                levels = ", ".join(study.levels) or "no vertebra"
                told.add(study, f"{levels} ({study.seconds:.1f} s)")
    except KeyboardInterrupt:
        raise told.stopped(out) from None
    typer.echo(
        f"{told.counted(every_volume)} segmented, {told.there_already()}"
        f"{told.refused} left out, in {out}."
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
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom",
            help="Also for a PACS: the vertebrae (UID_seg.dcm), the findings "
            "(UID_sr.dcm), key images and a page, with the patient of the input.",
        ),
    ] = False,
    again: AgainOption = False,
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
    from csfd_core.dicom_objects.beside import REPORT, write_dicom
    from csfd_core.inference.heatmap import HEATMAP, write_heatmap
    from csfd_core.inference.inputs import require_there
    from csfd_core.inference.predict import predict_input
    from csfd_core.inference.reading import reading_ahead
    from csfd_core.inference.segment import require_writable
    from csfd_core.registry.serving import open_ensemble
    from csfd_core.reports.prediction.page import PAGE, write_prediction_page
    from csfd_core.segmentation.bundle import BUILTIN
    from csfd_core.segmentation.model_store import open_model
    from csfd_core.segmentation.predict import VertebraPredictor
    from csfd_core.settings import Settings
    from csfd_core.store.record import read_record

    require_there(source)
    require_writable(out)
    stores = open_stores(Settings.read().store)
    if model != GENERAL:
        read_record(stores.root)  # a store of a newer csfd is refused
    told = Tally(done_by=Outcome.PREDICTED)
    probabilities, unlike = {}, {}
    wanted = [
        (write, ending)
        for write, ending, is_wanted in (
            (write_heatmap, HEATMAP, heatmaps),
            (write_prediction_page, PAGE, report),
            (write_dicom, REPORT, dicom),
        )
        if is_wanted
    ]
    try:
        with reading_ahead(every_volume=every_volume) as reading:
            ensemble = open_ensemble(stores, model)
            if ensemble.notice:
                typer.echo(ensemble.notice, err=True)
            if segmentation is None and model == GENERAL:
                segmentation = BUILTIN
            predictor = VertebraPredictor(open_model(segmentation, stores.root))
            told.begun = time.monotonic()
            for study in predict_input(
                source,
                out,
                predictor,
                ensemble,
                typer.echo,
                reading,
                beside=[write for write, _ in wanted],
                endings=[ending for _, ending in wanted],
                again=again,
            ):
                told.add(study, f"done in {study.seconds:.1f} s")
                if study.probabilities:
                    probabilities[study.name] = study.probabilities
                if study.unlike is not None:
                    unlike[study.name] = study.unlike
    except KeyboardInterrupt:
        raise told.stopped(out) from None
    print_predictions(probabilities, ensemble.thresholds, unlike)
    empty = f"{told.empty} without a vertebra, " if told.empty else ""
    typer.echo(
        f"{told.counted(every_volume)} predicted by {ensemble.title} (trained on "
        f"{ensemble.data_kind} data), {told.there_already()}{empty}{told.refused} left "
        f"out, in {out}. Not for clinical use."
    )
    if report and probabilities:
        typer.echo(f"Pages to look at: {_pages(out, list(probabilities))}")
    told.require_done("No study could be predicted.")


def _pages(out: Path, names: list[str]) -> str:
    """Return where the pages of studies are, or of very many how they are named."""
    from csfd_core.reports.prediction.page import PAGE

    if len(names) > _NAMED_PAGES:
        return str(out / f"*{PAGE}")
    return ", ".join(str(out / f"{name}{PAGE}") for name in names)
