"""What is to be taken up, beside what the store has made."""

from pathlib import Path

import pytest
from support.dicom_studies import (
    SLICES,
    STUDY_UID,
    add_series,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)

from csfd_core.ingest.convert import StudyTask, convert_study, study_tasks
from csfd_core.ingest.plan import listing_digest, plan_arrivals, survey
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.store.locations import Location
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.store.volume_choices import VolumeChoice


def is_due(stores: Stores, sources: Sources) -> bool:
    return survey(stores, sources, ConversionSettings()).studies[STUDY_UID].is_due


@pytest.mark.parametrize("lost", ["predicted_masks", "crops"])
def test_a_study_is_due_until_it_has_masks_and_crops(tmp_path: Path, lost: str) -> None:
    """As when a later step has failed: its conversion alone looks finished."""
    write_study(tmp_path / "source")
    stores = Stores(Location(tmp_path / "store"))
    sources = Sources([Source(tmp_path / "source")])
    (folder,) = sources.studies()
    convert_study(StudyTask(folder, stores))
    write_studies_table(stores, sources)
    for name in ("predicted_masks", "crops"):
        assert is_due(stores, sources)
        stores.root.write(f"{name}/{STUDY_UID}.parquet", b"made")
    assert not is_due(stores, sources)
    stores.root.remove(f"{lost}/{STUDY_UID}.parquet")
    found = survey(stores, sources, ConversionSettings())
    plan = plan_arrivals(found, [STUDY_UID])
    assert list(plan.take_up) == [STUDY_UID]
    # Who has asked for it as it is does not ask again.
    assert not plan_arrivals(found, [STUDY_UID], asked=plan.take_up).take_up


def test_a_study_of_which_a_volume_is_chosen_is_due_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    add_series(write_study(source), "8", every=2)
    write_mask(source, neck_mask(), volume_affine_ras())
    stores = Stores(Location(tmp_path / "store"))
    sources = Sources([Source(source)])

    def look() -> tuple[str, str]:
        found = survey(stores, sources, ConversionSettings()).studies[STUDY_UID]
        return found.version, listing_digest(stores, sources)

    def read() -> tuple[int, bool]:
        """Take the study up; return its slices, and whether it has a mask."""
        convert_study(study_tasks(sources.studies(), stores)[0])
        for name in ("predicted_masks", "crops"):
            stores.root.write(f"{name}/{STUDY_UID}.parquet", b"made")
        write_studies_table(stores, sources)
        shape = stores.slices.verify(STUDY_UID)
        return shape[0], stores.masks.read_note(STUDY_UID) is not None

    assert read() == (SLICES, True)
    seen = {look()}
    for version, slice_uid, wanted in (
        (2, f"{STUDY_UID}.8.1", (SLICES // 2, False)),
        (3, f"{STUDY_UID}.1.1", (SLICES, True)),  # back
    ):
        assert not is_due(stores, sources)
        choice = VolumeChoice(
            study_uid=STUDY_UID, slice_uid=slice_uid, told="", by="ann", version=version
        )
        assert stores.volume_choices.add(choice)
        assert is_due(stores, sources)
        assert look()[0] not in {one for one, _ in seen}
        assert look()[1] not in {one for _, one in seen}
        seen.add(look())
        assert read() == wanted
        assert not is_due(stores, sources)
        assert look() in seen  # being read changes nothing of what lies outside
