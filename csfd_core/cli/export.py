"""``csfd export``: studies as a source for another csfd, without their patients."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from csfd_core.cli.options import SourceOption, StoreOption, WorkersOption
from csfd_core.errors import SettingsError, SourceError
from csfd_core.text import count, join
from csfd_core.vocabulary import LABEL_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from csfd_core.deid.export import ExportedStudy, ExportTask, MaskChoice
    from csfd_core.store.locations import Location
    from csfd_core.store.source import Sources, StudyFolder
    from csfd_core.store.stores import Stores

_NAMED = 5  # studies, as examples


def register(app: typer.Typer) -> None:
    """Add the command to ``csfd``."""
    app.command()(export)


def export(
    out: Annotated[
        str,
        typer.Argument(metavar="OUT", help="New folder or s3:// URL, or one to go on."),
    ],
    study_uids: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY_UID", help="Studies.")
    ] = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="Every study that a reader has labelled.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every study.")] = False,
    masks: Annotated[
        str,
        typer.Option(
            metavar="given|any|none",
            help="given: the mask that came with a study; any: where there is none, "
            "the one that a model has predicted, which is no truth.",
        ),
    ] = "given",
    source: SourceOption = None,
    store: StoreOption = None,
    workers: WorkersOption = None,
) -> None:
    """Write studies, masks and labels as a source that names nobody.

    What is not de-identified yet is on the way; patients are told by keyed digests and
    stay together. Called again, it goes on where it stopped and adds what is new.

    Example: `csfd export data/export --signed`
    """
    from csfd_core.cli.stores import open_stores
    from csfd_core.deid.export import MaskChoice, claim, drop_studies, write_tables
    from csfd_core.settings import Settings
    from csfd_core.store.locations import Location
    from csfd_core.store.source import Source, Sources

    if masks not in list(MaskChoice):
        raise typer.BadParameter(
            f"one of {join(MaskChoice)}. Received: {masks}.", param_hint="--masks"
        )
    wanted = list(dict.fromkeys(study_uids or []))
    if bool(wanted) + signed + every != 1:
        raise typer.BadParameter(
            "name studies, or give --signed or --all: one of the three."
        )
    settings = Settings.read(workers=workers)
    source_list = [Source(source or settings.source).require()]
    if source is None:
        source_list.append(Source(settings.inbox))
    stores, sources = open_stores(store or settings.store), Sources(source_list)
    target = Location(out)
    tasks, left_out = _tasks(
        stores, sources, target, wanted, MaskChoice(masks), is_signed=signed
    )
    claim(target, _phantom_of(tasks))
    if dropped := drop_studies(target, stores.withdrawn.study_uids()):
        taken = count(dropped, "withdrawn study", "was", "were")
        left_out.append(f"{taken} taken out of {out}.")
    done = _export(tasks, settings.workers)
    write_tables(target)
    for line in (*left_out, *_tell(tasks, done, out)):
        typer.echo(line)


def _tasks(
    stores: "Stores",
    sources: "Sources",
    out: "Location",
    wanted: Sequence[str],
    masks: "MaskChoice",
    *,
    is_signed: bool,
) -> tuple[list["ExportTask"], list[str]]:
    """Return what to export, and what is left out and why.

    Raises:
        SettingsError: If a study that is named cannot be exported, or there is none.
    """
    from csfd_core.deid.export import ExportTask
    from csfd_core.deid.volume_read import boxes_read, volume_read
    from csfd_core.store.labels import read_all_boxes

    withdrawn = stores.withdrawn.study_uids()
    labels = stores.label_history.read_labels(sources.locations, withdrawn)
    boxes = read_all_boxes(sources.locations, withdrawn).table
    by_study = {str(uid): of_study for uid, of_study in boxes.groupby("study_uid")}
    folders = {f.name: f for f in sources.studies() if f.files}
    chosen = wanted or [uid for uid in folders if not is_signed or uid in labels.dated]
    usable, left_out = _usable(stores, folders, chosen, withdrawn)
    if wanted and left_out:
        raise SettingsError(f"{left_out[0]} Nothing was written.")
    if not usable:
        raise SettingsError("There is no such study to export. Nothing was written.")
    tasks = [
        ExportTask(
            folder=volume_read(stores, folders[uid]),
            stores=stores,
            out=out,
            masks=masks,
            labels=_labels_of(labels.table, uid),
            boxes=boxes_read(stores, uid, by_study[uid]) if uid in by_study else (),
        )
        for uid in usable
    ]
    return tasks, left_out


def _labels_of(table: "pd.DataFrame", study_uid: str) -> dict[str, int | None]:
    """Return the labels of a study, {} where it has none."""
    if study_uid not in table.index:
        return {}
    labelled = table.loc[study_uid].dropna().to_dict()
    values = {str(name): int(value) for name, value in labelled.items()}
    return {name: values.get(name) for name in LABEL_COLUMNS} if values else {}


def _usable(
    stores: "Stores",
    folders: dict[str, "StudyFolder"],
    chosen: Sequence[str],
    withdrawn: frozenset[str],
) -> tuple[list[str], list[str]]:
    """Return the studies that can be exported, and why others cannot."""
    why: dict[str, list[str]] = {}
    usable = []
    for uid in chosen:
        record = stores.metadata.read_record(uid) if uid in folders else None
        if uid in withdrawn:
            reason = "withdrawn and must not be passed on"
        elif uid not in folders:
            reason = "in neither the source nor the inbox"
        elif record is None:
            reason = "not taken up yet (csfd run)"
        elif record.is_quarantined:
            reason = "quarantined (csfd inspect says why)"
        else:
            usable.append(uid)
            continue
        why.setdefault(reason, []).append(uid)
    told = [
        f"{count(len(uids), 'study', 'is', 'are')} {reason}: {_named(uids)}."
        for reason, uids in why.items()
    ]
    return usable, told


def _phantom_of(tasks: Sequence["ExportTask"]) -> bytes | None:
    """Return what says that studies are synthetic, ``None`` where they are not.

    Raises:
        SettingsError: If only some of them are.
    """
    from csfd_core.store.layout import PHANTOM_FILE

    sources = {task.folder.source.url: task.folder.source for task in tasks}
    synthetic = [source for source in sources.values() if source.exists(PHANTOM_FILE)]
    if synthetic and len(synthetic) < len(sources):
        raise SettingsError(
            "Some of these studies are phantoms and some are not. Export them apart: "
            "name the studies."
        )
    return synthetic[0].read(PHANTOM_FILE) if synthetic else None


def _export(tasks: Sequence["ExportTask"], workers: int) -> dict[str, "ExportedStudy"]:
    """Export studies; return what became of each, by its UID here.

    Raises:
        SourceError: If one cannot be read or written; the others are finished first.
    """
    from csfd_core.cli.console import study_progress
    from csfd_core.deid.export import export_study
    from csfd_core.runtime.executors import completed, default_workers, open_executor

    done: dict[str, ExportedStudy] = {}
    failed: list[BaseException] = []
    with (
        open_executor(workers or default_workers(len(tasks))) as executor,
        study_progress("Export", len(tasks)) as progress,
    ):
        for task, future in completed(executor, export_study, tasks):
            if (error := future.exception()) is not None:
                failed.append(error)
                progress.advance(1, 0, 0)
                continue
            exported = done[task.folder.name] = future.result()
            size = exported.size_bytes if exported.is_new else 0
            progress.advance(1, exported.images if exported.is_new else 0, size)
    if failed:
        told = str(failed[0]) if isinstance(failed[0], SourceError) else ""
        raise SourceError(
            f"{count(len(failed), 'study')} failed; the first: "
            f"{told or type(failed[0]).__name__} Run the same command again to go on."
        )
    return done


def _tell(
    tasks: Sequence["ExportTask"], done: dict[str, "ExportedStudy"], out: str
) -> list[str]:
    from csfd_core.deid.export import MaskKind
    from csfd_core.deid.refusals import Reason, tell

    whole = [one for one in done.values() if not one.is_left_out]
    passed_over: Counter[Reason] = Counter()
    for one in done.values():
        passed_over.update(one.passed_over)
    lines = [tell(reason, n) for reason, n in passed_over.items()]
    lost = sorted(uid for uid, one in done.items() if one.is_left_out)
    if lost:
        had = count(len(lost), "study", "has", "have")
        lines.append(f"{had} such files among the slices and left out: {_named(lost)}.")
    new = sum(one.is_new for one in whole)
    masks = Counter(one.mask for one in whole)
    labelled = sum(
        bool(task.labels) for task in tasks if not done[task.folder.name].is_left_out
    )
    lines.append(
        f"{count(len(whole), 'study')} in {out}: {new} written, "
        f"{len(whole) - new} as before; {labelled} with labels, "
        f"{masks[MaskKind.GIVEN]} with a mask that came with it, "
        f"{masks[MaskKind.PREDICTED]} with one that a model has predicted."
    )
    return lines


def _named(uids: Sequence[str]) -> str:
    return ", ".join(uids[:_NAMED]) + (", ..." if uids[_NAMED:] else "")
