"""The sections of the report on data, from its inputs."""

from typing import Final

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

_OVERLAY_ROWS: Final = 4
_FILM: Final = "film"


def build_sections(inputs: EdaInputs, films: Films | None) -> tuple[Section, ...]:
    """Build all sections. Quarantined studies count in the last one only."""
    good = usable_studies(inputs.studies)
    return (
        _share_section(good),
        _levels_section(good),
        _per_study_section(good),
        _correlation_section(good),
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


def _share_section(good: pd.DataFrame) -> Section:
    share = statistics.fracture_share(good)
    is_known = bool(share["studies"].any())
    return Section(
        key="fracture_share",
        title="How many studies are fractured",
        sentence=say_fracture_share(share),
        figure=charts.plot_fracture_share(share) if is_known else None,
        tables=_tables("fracture_share", "Share per level", share, is_known=is_known),
    )


def _levels_section(good: pd.DataFrame) -> Section:
    counts = statistics.fractures_per_level(good)
    is_known = _is_labelled(good)
    return Section(
        key="fractures_per_level",
        title="Fractures per level",
        sentence=say_fractures_per_level(counts, is_labelled=is_known),
        figure=charts.plot_fractures_per_level(counts) if is_known else None,
        tables=_tables("fractures_per_level", "Fractures", counts, is_known=is_known),
    )


def _per_study_section(good: pd.DataFrame) -> Section:
    counts = statistics.levels_per_study(good)
    is_known = bool(counts["studies"].any())
    return Section(
        key="levels_per_study",
        title="Fractured levels per study",
        sentence=say_levels_per_study(counts),
        figure=charts.plot_levels_per_study(counts) if is_known else None,
        tables=_tables("levels_per_study", "Studies", counts, is_known=is_known),
    )


def _correlation_section(good: pd.DataFrame) -> Section:
    correlation = statistics.label_correlation(good)
    complete = len(statistics.label_matrix(good).dropna())
    is_known = complete > 1
    table = correlation.rename_axis("label").reset_index()
    return Section(
        key="label_correlation",
        title="Which levels are fractured together",
        sentence=say_correlation(correlation, complete),
        figure=charts.plot_correlation(correlation, complete) if is_known else None,
        tables=_tables("label_correlation", "Coefficients", table, is_known=is_known),
    )


def _geometry_section(good: pd.DataFrame) -> Section:
    summary = statistics.describe_geometry(good)
    is_known = bool(summary["n"].any())
    bins = statistics.geometry_bins(good)
    return Section(
        key="geometry",
        title="Slices and spacings",
        sentence=say_geometry(summary),
        figure=charts.plot_geometry(good) if is_known else None,
        tables=(
            *_tables("geometry", "Summary", summary, is_known=is_known),
            *_tables("geometry_bins", "Bins", bins, is_known=is_known),
        ),
    )


def _slices_section(stores: Stores | None, good: pd.DataFrame) -> Section:
    key, title = "slices", "A study from top to bottom"
    chosen = _with_slices(stores, good, key, 1)
    if stores is None or not chosen:
        return Section(key=key, title=title, sentence=say("no_images"))
    figure, indices = plot_slices(stores, chosen[0])
    count = int(good["slice_count"][good["study_uid"] == chosen[0]].iloc[0])
    return Section(
        key=key,
        title=title,
        sentence=say(key, shown=len(indices), slices=count, study_uid=chosen[0]),
        figure=figure,
        is_picture=True,
    )


def _side_view_section(stores: Stores | None, good: pd.DataFrame) -> Section:
    key, title = "side_view", "The vertebrae from the side"
    chosen = _with_masks(stores, good, _FILM, 1)  # the study of the film
    if stores is None or not chosen:
        return Section(key=key, title=title, sentence=_lacks(stores))
    images = read_images(stores, chosen[0])
    if images.mask is None:
        return Section(key=key, title=title, sentence=say("no_masks"))
    return Section(
        key=key,
        title=title,
        sentence=say(
            key,
            study_uid=chosen[0],
            extent_mm=images.extent_mm,
            levels=levels_in(images.mask),
        ),
        figure=plot_side_view(images, images.mask),
        is_picture=True,
    )


def _overlay_section(stores: Stores | None, good: pd.DataFrame) -> Section:
    key, title = "overlay", "Image, mask and both"
    chosen = _with_masks(stores, good, key, _OVERLAY_ROWS)
    slices = []
    if stores is not None and chosen:
        slices = random_masked_slices(stores, chosen, _OVERLAY_ROWS)
    if not slices:
        return Section(key=key, title=title, sentence=_lacks(stores))
    masked = int(good["has_mask"].sum())
    return Section(
        key=key,
        title=title,
        sentence=say(key, slices=len(slices), studies=len(chosen), masked=masked),
        figure=plot_overlays(slices),
        is_picture=True,
    )


def _film_section(stores: Stores | None, films: Films | None) -> Section:
    title = "Film from skull base to upper back"
    if stores is None or films is None:
        return Section(key=_FILM, title=title, sentence=say("no_images"))
    shown = [Film(path=PLAIN, title="Plain (MP4)", content=films.plain)]
    if films.overlay is not None:
        overlaid = "With the mask laid over (MP4)"
        shown.append(Film(path=OVERLAY, title=overlaid, content=films.overlay))
    return Section(
        key=_FILM,
        title=title,
        sentence=say(_FILM, note=films.note, has_mask=films.overlay is not None),
        figure=plot_film_strip(films.preview),
        is_picture=True,
        films=tuple(shown),
    )


def _box_sections(inputs: EdaInputs, good: pd.DataFrame) -> list[Section]:
    boxes = describe_boxes(inputs.boxes, good, inputs.stores)
    title = "Fracture boxes"
    if not len(boxes):
        return [Section(key="boxes", title=title, sentence=say("no_boxes"))]
    per_level = boxes_per_level(boxes)
    first = Section(
        key="boxes",
        title=title,
        sentence=say_boxes(boxes, per_level),
        figure=plot_boxes(boxes),
        tables=(
            Table(name="boxes_per_level", title="Boxes per level", frame=per_level),
            Table(name="boxes", title="All boxes", frame=boxes),
        ),
    )
    figure, count = None, 0
    if inputs.stores is not None:
        figure, count = plot_box_examples(boxes, inputs.stores) or (None, 0)
    examples = Section(
        key="box_examples",
        title="Fracture boxes on their slices",
        sentence=say(
            "no_images" if figure is None else "box_examples",
            shown=count,
            studies=boxes["study_uid"].nunique(),
        ),
        figure=figure,
        is_picture=True,
    )
    return [first, examples]


def _quality_section(inputs: EdaInputs) -> Section:
    studies, syntaxes = inputs.studies, inputs.syntaxes
    quality = quality_table(studies, inputs.labels_without_images)
    tables = [Table(name="quality", title="Counts", frame=quality)]
    if syntaxes is not None:
        named = syntaxes.assign(
            name=[syntax_name(uid) for uid in syntaxes["transfer_syntax_uid"]]
        )
        title = "Transfer syntaxes"
        tables.append(Table(name="transfer_syntaxes", title=title, frame=named))
    reasons = studies[studies["quarantine_code"].notna()]
    reasons = reasons[["study_uid", "quarantine_code", "quarantine_reason"]]
    tables += _if_any("quarantined", "Quarantined", reasons)
    tables += _if_any("duplicates", "Same slices", duplicates(studies))
    return Section(
        key="quality",
        title="Quality of the data",
        sentence=say_quality(studies, quality, syntaxes),
        figure=charts.plot_quality(quality, syntaxes) if len(studies) else None,
        tables=tuple(tables),
    )


def _tables(
    name: str, title: str, frame: pd.DataFrame, *, is_known: bool
) -> tuple[Table, ...]:
    return (Table(name=name, title=title, frame=frame),) if is_known else ()


def _if_any(name: str, title: str, frame: pd.DataFrame) -> tuple[Table, ...]:
    return _tables(name, title, frame, is_known=len(frame) > 0)


def _is_labelled(good: pd.DataFrame) -> bool:
    return bool(good[list(LABEL_COLUMNS)].notna().to_numpy().any())


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
