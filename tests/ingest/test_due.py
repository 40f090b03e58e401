"""What is to be taken up, beside what the store has made."""

from pathlib import Path

import pytest
from support.dicom_studies import STUDY_UID, write_study

from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.plan import plan_arrivals, survey
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.store.locations import Location
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores


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
