"""Sensors: what changes outside is told, what follows is asked for, the dead are found.

``new_studies`` tells what has changed as observations, ``followers`` evaluates the
conditions of the assets. Only uploaded studies, which somebody waits for, are asked for
at once (``csfd_dagster.uploads``).
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import dagster as dg
import pydantic

from csfd_core.ingest.completeness import read_notes, tell_incomplete
from csfd_core.ingest.plan import Plan, Survey, listing_digest, plan_arrivals, survey
from csfd_core.lineage.redaction import all_records
from csfd_core.lineage.withdrawal import withdraw_noted
from csfd_core.settings import ScheduleSettings, Settings
from csfd_core.text import agree, count
from csfd_dagster.conditions import ASKED_BY, CONDITIONS
from csfd_dagster.observing import (
    observe_labels,
    observe_settings,
    observe_studies,
    settings_version,
)
from csfd_dagster.partitions import studies
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource
from csfd_dagster.runs import fail_dead_runs, retry_given_up
from csfd_dagster.uploads import studies_on_their_way, uploads

NEW_STUDIES: Final = "new_studies"
_FOLLOW_EVERY_S: Final = 10
_COUNT_EVERY_S: Final = 30
_LONG_LOOK_S: Final = 2.0  # after which the sensor rests
_REST: Final = 9  # times as long as a look took
# Of many that arrive at once: Dagster keeps the cursor with each tick, and ends a tick
# that takes too long.
_AT_ONCE: Final = 500  # studies that a tick takes up
_WATCHED: Final = 1000  # of which it remembers since when they have stayed as they are
_UNDER_WAY: Final = 2000  # that may be taken up and not done


Change = dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest


class Seen(pydantic.BaseModel):
    """What the sensor remembers from tick to tick: its cursor.

    Attributes:
        listing: Of the sources, where nothing in it waits for another tick.
        labels: Version of the labels that was observed.
        settings: Version of the settings that was observed.
        day: On which ``asked`` was begun.
        unsettled: Studies with their versions that have to stay as they are; of very
            many the first.
        since: When those versions were seen first, in POSIX seconds.
        rest_until: When a look at large sources may be taken again, in POSIX seconds.
        asked: Studies with their versions that were taken up and are not done yet.
        studies: How many there are.
        lacking: What is told of studies that lack files.
    """

    listing: str = ""
    labels: str = ""
    settings: str = ""
    day: str = ""
    unsettled: dict[str, str] = {}
    since: dict[str, float] = {}
    rest_until: float = 0.0
    asked: dict[str, str] = {}
    studies: int = 0
    lacking: str = ""


def look_for_studies(
    context: dg.SensorEvaluationContext,
    source: SourceResource,
    store: StoreResource,
    segmentation: SegmentationResource,
    classification: ClassificationResource,
) -> dg.SensorResult:
    """Tell what is new or changed in the source and the inbox; withdraw studies.

    A study is taken up once its files have stayed as they are for a minute, and are as
    many as its label file says, so that one that is still being copied is left alone.
    What a label file withdraws is taken out of the store. A study that was taken up and
    is not done is taken up again the next day. Uploads that are on their way are not
    its business.
    """
    sources, stores = source.open(), store.open()
    before = Seen.model_validate_json(context.cursor or "{}")
    begun = time.time()
    if begun < before.rest_until:
        return _tell("The sources are large: looked at less often", before)
    listing = listing_digest(stores, sources)
    took_s = time.time() - begun
    before = before.model_copy(
        update={"rest_until": begun + _REST * took_s if took_s > _LONG_LOOK_S else 0.0}
    )
    now = Seen(
        listing=listing,
        settings=settings_version(segmentation, classification),
        day=str(datetime.now(UTC).date()),
    )
    unchanged = ("listing", "settings", "day")
    if all(getattr(before, name) == getattr(now, name) for name in unchanged):
        return _tell(f"Nothing has changed in {_studies(before)}", before)
    notes = read_notes(sources)
    records = all_records(Settings.read().mlflow_tracking_uri)
    if told := withdraw_noted(stores, notes, records):
        context.log.warning(told)
    surveyed, coming = _without_uploads(
        survey(stores, sources, store.conversion(), notes)
    )
    again = before.asked if before.day != now.day else {}
    room = min(_AT_ONCE, _UNDER_WAY - len(before.asked))
    plan = plan_arrivals(
        surveyed,
        context.instance.get_dynamic_partitions(str(studies.name)),
        before={**_settled(before, begun), **again},
        asked={} if again else before.asked,
        most=None if again else max(room, 0),
    )
    now = _remember(now, before, plan, surveyed, begun)
    if coming:  # they are looked at again once they are done
        now = now.model_copy(update={"listing": ""})
    events = list(observe_studies(_versions(plan, before, now.day)))
    if before.labels != now.labels:
        events.append(observe_labels(now.labels))
    if before.settings != now.settings:
        events += observe_settings(segmentation, classification)
    return _tell(_told(plan, now), now, events, _requests(plan))


def _without_uploads(surveyed: Survey) -> tuple[Survey, bool]:
    """Leave out what the sensor ``uploads`` asks for; say whether there is any."""
    coming = studies_on_their_way() & set(surveyed.studies)
    rest = {uid: one for uid, one in surveyed.studies.items() if uid not in coming}
    return replace(surveyed, studies=rest), bool(coming)


def _settled(before: Seen, now: float) -> dict[str, str]:
    """Return the versions that were seen as long ago as they have to stay."""
    settle_s = ScheduleSettings.read().settle_s
    return {
        uid: version
        for uid, version in before.unsettled.items()
        if now - before.since.get(uid, 0.0) >= settle_s
    }


def _remember(
    now: Seen, before: Seen, plan: Plan, surveyed: Survey, time_s: float
) -> Seen:
    is_due = {uid for uid, study in surveyed.studies.items() if study.is_due}
    asked = {uid: version for uid, version in before.asked.items() if uid in is_due}
    since = {
        uid: before.since.get(uid, time_s)
        if before.unsettled.get(uid) == version
        else time_s
        for uid, version in plan.unsettled.items()
    }
    watched = sorted(since, key=lambda uid: (since[uid], uid))[:_WATCHED]
    return now.model_copy(
        update={
            "listing": "" if plan.unsettled or plan.take_up else now.listing,
            "labels": surveyed.labels_version,
            "unsettled": {uid: plan.unsettled[uid] for uid in watched},
            "since": {uid: since[uid] for uid in watched},
            "rest_until": before.rest_until,
            "asked": asked | dict(plan.take_up),
            "studies": len(surveyed.studies),
            "lacking": tell_incomplete(plan.incomplete),
        }
    )


def _versions(plan: Plan, before: Seen, day: str) -> dict[str, str]:
    """Return the versions to observe; those that were asked for before get the day.

    An observation of the same version as before would start nothing.
    """
    return {
        uid: f"{version}-{day}" if before.asked.get(uid) == version else version
        for uid, version in plan.take_up.items()
    }


def _requests(plan: Plan) -> list[Change]:
    changes: list[Change] = []
    if plan.withdrawn:
        changes.append(studies.build_delete_request(list(plan.withdrawn)))
    if plan.new:
        changes.append(studies.build_add_request(list(plan.new)))
    return changes


def _told(plan: Plan, now: Seen) -> str:
    more = len(plan.unsettled)
    waiting = f"{more} more {agree(more, 'waits', 'wait')}"
    if plan.take_up:
        taken_up = f"{count(len(plan.take_up), 'study', 'is', 'are')} taken up"
        return f"{taken_up}, {waiting}" if plan.unsettled else taken_up
    if plan.unsettled and len(now.asked) >= _UNDER_WAY:
        under_way = count(len(now.asked), "study", "is", "are")
        return f"{under_way} taken up and not done: {waiting}"
    if plan.unsettled:
        changed = count(len(plan.unsettled), "study", "has", "have")
        return f"{changed} changed, to be taken up once all files stay as they are"
    return f"Nothing has changed in {_studies(now)}"


def _studies(seen: Seen) -> str:
    return count(seen.studies, "study")


def _tell(
    told: str,
    seen: Seen,
    events: Sequence[dg.AssetObservation] = (),
    changes: Sequence[Change] = (),
) -> dg.SensorResult:
    return dg.SensorResult(
        skip_reason=f"{told}. {seen.lacking}".rstrip(),
        cursor=seen.model_dump_json(),
        asset_events=events,
        dynamic_partitions_requests=changes,
    )


def build_sensors() -> list[dg.SensorDefinition]:
    """Build the sensors with the settings of the environment.

    Raises:
        SettingsError: If one of them cannot be used.
    """
    new_studies = dg.sensor(
        name=NEW_STUDIES,
        asset_selection=dg.AssetSelection.assets("source_studies"),
        minimum_interval_seconds=ScheduleSettings.read().look_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )(look_for_studies)
    return [new_studies, uploads, followers, dead_runs]


@dg.sensor(
    minimum_interval_seconds=_COUNT_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Have runs started again whose process was killed."""
    again = [*fail_dead_runs(context.instance), *retry_given_up(context.instance)]
    if not again:
        return dg.SkipReason("Every run that is under way has its process.")
    died = count(len(again), "run", "has", "have")
    return dg.SkipReason(f"{died} died: {', '.join(run[:8] for run in again)}.")


# What follows from what was told or made is asked for.
followers = dg.AutomationConditionSensorDefinition(
    "followers",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=_FOLLOW_EVERY_S,
    run_tags={ASKED_BY: CONDITIONS},
)
