"""The report on the data: ``index.html`` with its figures, tables and films.

``write_eda_report`` is what the command, the asset and a notebook call. It works on a
label table alone; what needs images then says so.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from csfd_core.reports.eda.film import Films, current_films
from csfd_core.reports.eda.inputs import EdaInputs, content_digest, read_inputs
from csfd_core.reports.eda.sections import build_sections, film_study
from csfd_core.reports.eda.statistics import fracture_share, label_matrix
from csfd_core.reports.page import INDEX, Page, Section, Written, write_page
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.source import Sources
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores

_STATE: Final = "state.json"
_VERSION: Final = 1  # raised when the report shows something else of the same data
_TITLE: Final = "Cervical spine CT: the data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers by which one sees that the data have changed."""

    studies: int
    quarantined: int
    labelled: int
    fractured: int
    with_mask: int
    boxes: int
    slices: int

    def __str__(self) -> str:
        """Say them in words."""
        return (
            f"{self.studies} studies ({self.quarantined} quarantined), "
            f"{self.labelled} labelled, {self.fractured} fractured, {self.with_mask} "
            f"with a mask, {self.boxes} boxes, {self.slices} slices"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """Since when the data are as they are; kept beside the page."""

    digest: str
    since: str  # ISO 8601, UTC
    numbers: Numbers
    before: Numbers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdaReport:
    """What was written. Paths are relative to the report's location."""

    location: Location
    numbers: Numbers
    since: str
    sections: tuple[Section, ...]
    written: Written
    films: Films | None

    @property
    def page_path(self) -> str:
        """Where the page is."""
        return f"{self.location}/{INDEX}"


def report_location(stores: Stores) -> Location:
    """Return where the report lies in a store."""
    return stores.root.join(paths.EDA_REPORT)


def write_eda_report(
    sources: Sources,
    stores: Stores | None = None,
    out: Location | None = None,
    *,
    now: datetime | None = None,
) -> EdaReport:
    """Write the report on all studies.

    The same data give the same bytes: the date on the page is that of the last change,
    kept in ``state.json`` beside it.

    Args:
        sources: Where labels and boxes are.
        stores: The store with the images; without it the labels alone are described.
        out: Where to write; ``reports/eda`` in the store by default.
        now: Time to record if the data have changed; the clock's by default.

    Raises:
        ValueError: If neither a store nor ``out`` is given.
        SourceError: If something cannot be read or written.
    """
    if out is None:
        if stores is None:
            raise ValueError("Give `stores` or `out`. Received neither.")
        out = report_location(stores)
    inputs = read_inputs(sources, stores)
    return write_report_of(inputs, out, now=now)


def write_report_of(
    inputs: EdaInputs, out: Location, *, now: datetime | None = None
) -> EdaReport:
    """Write the report on inputs that were read, or made, before."""
    films, _ = make_film(inputs, out)
    sections = build_sections(inputs, films)
    state = _next_state(inputs, _read_state(out), now or datetime.now(UTC))
    page = Page(
        title=_TITLE,
        banner=inputs.kind.banner,
        facts=_facts(inputs, state),
        sections=sections,
    )
    written = write_page(out, page)
    text = json.dumps(asdict(state), indent=1, sort_keys=True)
    out.write(_STATE, f"{text}\n".encode())
    return EdaReport(
        location=out,
        numbers=state.numbers,
        since=state.since,
        sections=sections,
        written=written,
        films=films,
    )


def make_film(inputs: EdaInputs, out: Location) -> tuple[Films | None, bool]:
    """Return the films, and whether they were made now; none without images."""
    study_uid = film_study(inputs)
    if study_uid is None or inputs.stores is None:
        return None, False
    return current_films(out, inputs.stores, study_uid)


def is_current(sources: Sources, stores: Stores) -> bool:
    """Say whether the report in a store shows the data as they are now."""
    state = _read_state(report_location(stores))
    if state is None:
        return False
    inputs = read_inputs(sources, stores, with_headers=False)
    return state.digest == content_digest(inputs, _VERSION)


def count_numbers(inputs: EdaInputs) -> Numbers:
    """Count what the page says at its top; quarantined studies count as such only."""
    good = usable_studies(inputs.studies)
    labels = label_matrix(good)
    overall = fracture_share(good).iloc[0]
    return Numbers(
        studies=len(inputs.studies),
        quarantined=len(inputs.studies) - len(good),
        labelled=int(labels.notna().all(axis=1).sum()),
        fractured=int(overall["fractured"]),
        with_mask=int(good["has_mask"].astype(bool).sum()),
        boxes=int(inputs.boxes["study_uid"].isin(good["study_uid"]).sum()),
        slices=int(good["slice_count"].fillna(0).sum()),
    )


def _facts(inputs: EdaInputs, state: _State) -> tuple[tuple[str, str], ...]:
    numbers = state.numbers
    since = datetime.fromisoformat(state.since).strftime("%Y-%m-%d %H:%M UTC")
    facts = [
        ("Data", inputs.kind.described),
        (
            "Studies",
            f"{numbers.studies}; {numbers.quarantined} are quarantined and left out of "
            "all figures but the last"
            if numbers.quarantined
            else f"{numbers.studies}, none quarantined",
        ),
        ("Labelled", f"{numbers.labelled}, {numbers.fractured} with a fracture"),
        (
            "Images",
            f"{numbers.slices} slices; {numbers.with_mask} studies with a mask"
            if inputs.stores is not None
            else "none: a label table alone",
        ),
        ("Fracture boxes", str(numbers.boxes)),
        ("These numbers hold since", since),
    ]
    if state.before is not None:
        facts.append(("Before that", str(state.before)))
    facts.append(("Identity of the data", state.digest[:12]))
    return tuple(facts)


def _next_state(inputs: EdaInputs, old: _State | None, now: datetime) -> _State:
    digest = content_digest(inputs, _VERSION)
    if old is not None and old.digest == digest:
        return old
    return _State(
        digest=digest,
        since=now.astimezone(UTC).isoformat(timespec="minutes"),
        numbers=count_numbers(inputs),
        before=None if old is None else old.numbers,
    )


def _read_state(out: Location) -> _State | None:
    content = out.read_if_there(_STATE)
    if content is None:
        return None
    try:
        values = json.loads(content)
        before = values["before"]
        values["numbers"] = Numbers(**values["numbers"])
        values["before"] = None if before is None else Numbers(**before)
        return _State(**values)
    except (ValueError, TypeError, KeyError):  # of another version
        return None
