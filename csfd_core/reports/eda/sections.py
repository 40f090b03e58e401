"""The sections of the report on data, from its inputs."""

from typing import TYPE_CHECKING, Final

import pandas as pd

from csfd_core.reports.eda import charts, statistics
from csfd_core.reports.eda.box_charts import plot_box_examples, plot_boxes
from csfd_core.reports.eda.boxes import boxes_per_level, describe_boxes
from csfd_core.reports.eda.film import OVERLAY, PLAIN, Films
from csfd_core.reports.eda.images import read_images, stored_studies
from csfd_core.reports.eda.inputs import EdaInputs
from csfd_core.reports.eda.pictures import (
    levels_in,
    plot_film_strip,
    plot_overlays,
    plot_side_view,
    plot_slices,
    random_masked_slices,
)
from csfd_core.reports.eda.quality import (
    duplicates,
    quality_table,
    syntax_name,
)
from csfd_core.reports.eda.sampling import ranked
from csfd_core.reports.eda.sentences import (
    say,
    say_boxes,
    say_correlation,
    say_fracture_share,
    say_fractures_per_level,
    say_geometry,
    say_levels_per_study,
    say_quality,
)
from csfd_core.reports.page import Film, Section, Table
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OVERLAY_ROWS: Final = 4
_FILM: Final = "film"


def build_sections(inputs: EdaInputs, films: Films | None) -> tuple[Section, ...]:
    """Build all sections. Quarantined studies count in the last one only."""
    good = usable_studies(inputs.studies)
    return (
        *_label_sections(good),
        _geometry_section(good),
        _slices_section(inputs.stores, good),
        _side_view_section(inputs.stores, good),
        _overlay_section(inputs.stores, good),
        _film_section(inputs.stores, films),
        *_box_sections(inputs, good),
        _quality_section(inputs),
    )


def film_study(inputs: EdaInputs) -> str | None:
    """Choose the study to film: one with a mask where there is one."""
    good = usable_studies(inputs.studies)
    masked = _with_masks(inputs.stores, good, _FILM, 1)
    chosen = masked or _with_slices(inputs.stores, good, _FILM, 1)
    return chosen[0] if chosen else None


def _label_sections(good: pd.DataFrame) -> list[Section]:
    share = statistics.fracture_share(good)
    per_level = statistics.fractures_per_level(good)
    per_study = statistics.levels_per_study(good)
    correlation = statistics.label_correlation(good)
    complete = len(statistics.label_matrix(good).dropna())
    has_labels = bool(good[list(LABEL_COLUMNS)].notna().to_numpy().any())
    return [
        _chart(
            ("fracture_share", "How many studies are fractured"),
            say_fracture_share(share),
            charts.plot_fracture_share(share) if has_labels else None,
            _table("fracture_share", "Share per level", share),
        ),
        _chart(
            ("fractures_per_level", "Fractures per level"),
            say_fractures_per_level(per_level, is_labelled=has_labels),
            charts.plot_fractures_per_level(per_level) if has_labels else None,
            _table("fractures_per_level", "Fractures", per_level),
        ),
        _chart(
            ("levels_per_study", "Fractured levels per study"),
            say_levels_per_study(per_study),
            charts.plot_levels_per_study(per_study)
            if per_study["studies"].any()
            else None,
            _table("levels_per_study", "Studies", per_study),
        ),
        _chart(
            ("label_correlation", "Which levels are fractured together"),
            say_correlation(correlation, complete),
            charts.plot_correlation(correlation, complete) if complete > 1 else None,
            _table(
                "label_correlation",
                "Coefficients",
                correlation.rename_axis("label").reset_index(),
            ),
        ),
    ]


def _geometry_section(good: pd.DataFrame) -> Section:
    summary = statistics.describe_geometry(good)
    return _chart(
        ("geometry", "Slices and spacings"),
        say_geometry(summary),
        charts.plot_geometry(good) if summary["n"].any() else None,
        _table("geometry", "Summary", summary),
        _table("geometry_bins", "Bins", statistics.geometry_bins(good)),
    )


def _slices_section(stores: Stores | None, good: pd.DataFrame) -> Section:
    name = "slices", "A study from top to bottom"
    study_uids = _with_slices(stores, good, "slices", 1)
    if stores is None or not study_uids:
        return _picture(name, say("no_images"))
    (study_uid,) = study_uids
    figure, indices = plot_slices(stores, study_uid)
    count = int(good["slice_count"][good["study_uid"] == study_uid].iloc[0])
    shown = len(indices)
    sentence = say("slices", shown=shown, slices=count, study_uid=study_uid)
    return _picture(name, sentence, figure)


def _side_view_section(stores: Stores | None, good: pd.DataFrame) -> Section:
    name = "side_view", "The vertebrae from the side"
    study_uids = _with_masks(stores, good, _FILM, 1)  # the study of the film
    if stores is None or not study_uids:
        return _picture(name, _lacks(stores))
    images = read_images(stores, study_uids[0])
    if images.mask is None:
        return _picture(name, say("no_masks"))
    levels, extent_mm = levels_in(images.mask), images.extent_mm
    sentence = say(
        "side_view", study_uid=study_uids[0], extent_mm=extent_mm, levels=levels
    )
    return _picture(name, sentence, plot_side_view(images, images.mask))


def _overlay_section(stores: Stores | None, good: pd.DataFrame) -> Section:
    name = "overlay", "Image, mask and both"
    study_uids = _with_masks(stores, good, "overlay", _OVERLAY_ROWS)
    slices = []
    if stores is not None and study_uids:
        slices = random_masked_slices(stores, study_uids, _OVERLAY_ROWS)
    if not slices:
        return _picture(name, _lacks(stores))
    masked, studies = int(good["has_mask"].sum()), len(study_uids)
    sentence = say("overlay", slices=len(slices), studies=studies, masked=masked)
    return _picture(name, sentence, plot_overlays(slices))


def _film_section(stores: Stores | None, films: Films | None) -> Section:
    name = _FILM, "Film from skull base to upper back"
    if stores is None or films is None:
        return _picture(name, say("no_images"))
    shown = [Film(path=PLAIN, title="Plain (MP4)", content=films.plain)]
    if films.overlay is not None:
        overlaid = "With the mask laid over (MP4)"
        shown.append(Film(path=OVERLAY, title=overlaid, content=films.overlay))
    sentence = say(_FILM, note=films.note, has_mask=films.overlay is not None)
    return _picture(name, sentence, plot_film_strip(films.preview), *shown)


def _box_sections(inputs: EdaInputs, good: pd.DataFrame) -> list[Section]:
    boxes = describe_boxes(inputs.boxes, good, inputs.stores)
    name = "boxes", "Fracture boxes"
    if not len(boxes):
        return [_chart(name, say("no_boxes"), None)]
    per_level = boxes_per_level(boxes)
    first = _chart(
        name,
        say_boxes(boxes, per_level),
        plot_boxes(boxes),
        _table("boxes_per_level", "Boxes per level", per_level),
        _table("boxes", "All boxes", boxes),
    )
    figure, count = None, 0
    if inputs.stores is not None:
        figure, count = plot_box_examples(boxes, inputs.stores) or (None, 0)
    block = "no_images" if figure is None else "box_examples"
    sentence = say(block, shown=count, studies=boxes["study_uid"].nunique())
    name = "box_examples", "Fracture boxes on their slices"
    return [first, _picture(name, sentence, figure)]


def _quality_section(inputs: EdaInputs) -> Section:
    studies, syntaxes = inputs.studies, inputs.syntaxes
    quality = quality_table(studies, inputs.labels_without_images)
    tables = [_table("quality", "Counts", quality)]
    if syntaxes is not None:
        named = syntaxes.assign(
            name=[syntax_name(uid) for uid in syntaxes["transfer_syntax_uid"]]
        )
        tables.append(_table("transfer_syntaxes", "Transfer syntaxes", named))
    reasons = studies[studies["quarantine_code"].notna()]
    reasons = reasons[["study_uid", "quarantine_code", "quarantine_reason"]]
    copies = duplicates(studies)
    tables += [_table("quarantined", "Quarantined", reasons)] if len(reasons) else []
    tables += [_table("duplicates", "Same slices", copies)] if len(copies) else []
    return Section(
        key="quality",
        title="Quality of the data",
        sentence=say_quality(studies, quality, syntaxes),
        figure=charts.plot_quality(quality, syntaxes) if len(studies) else None,
        tables=tuple(tables),
    )


def _chart(
    name: tuple[str, str], sentence: str, figure: "Figure | None", *tables: Table
) -> Section:
    """Return a section of a chart, its tables only where there is one."""
    key, title = name
    tables = () if figure is None else tables
    return Section(
        key=key, title=title, sentence=sentence, figure=figure, tables=tables
    )


def _picture(
    name: tuple[str, str], sentence: str, figure: "Figure | None" = None, *films: Film
) -> Section:
    """Return a section of CT slices; without a figure it says what is missing."""
    return Section(
        key=name[0],
        title=name[1],
        sentence=sentence,
        figure=figure,
        is_picture=figure is not None,
        films=films,
    )


def _table(name: str, title: str, frame: pd.DataFrame) -> Table:
    return Table(name=name, title=title, frame=frame)


def _lacks(stores: Stores | None) -> str:
    return say("no_images" if stores is None else "no_masks")


def _with_slices(
    stores: Stores | None, good: pd.DataFrame, purpose: str, count: int
) -> list[str]:
    if stores is None:
        return []
    return stored_studies(stores, ranked(good["study_uid"], purpose), count)


def _with_masks(
    stores: Stores | None, good: pd.DataFrame, purpose: str, count: int
) -> list[str]:
    """Choose studies that have slices and a mask in the store."""
    if stores is None:
        return []
    masked = good["study_uid"][good["has_mask"].astype(bool)]
    ordered = (u for u in ranked(masked, purpose) if stores.masks.read_note(u))
    return stored_studies(stores, ordered, count)
