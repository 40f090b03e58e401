from pathlib import Path

import pandas as pd
import pytest
from support.dicom_studies import LABEL_HEADER
from support.material import require_material

from csfd_core.errors import SourceError
from csfd_core.store.box_slices import BoxRoom, tell_boxes_outside
from csfd_core.store.labels import read_all_labels, read_boxes, read_labels
from csfd_core.store.locations import Location


def write_labels(folder: Path, rows: str) -> Location:
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_text(LABEL_HEADER + rows)
    return Location(folder)


def test_rows_become_labels(tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path, "1.2.3,1,0,1,0,0,0,0,0\n"))
    assert labels.notes == ()
    assert labels.table.loc["1.2.3"].tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    assert labels.table["C1"].dtype == pd.Int8Dtype()


def test_blank_labels_are_null(tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path, "1.2.3,,,,,,,,\n"))
    assert labels.table.loc["1.2.3"].isna().all()
    assert labels.notes == ()


@pytest.mark.parametrize("uid", ["../x", "1.2.3/../4", "", "1..2", "1.02", "a.b"])
def test_rows_without_a_valid_uid_are_left_out(tmp_path: Path, uid: str) -> None:
    rows = f"{uid},0,0,0,0,0,0,0,0\n1.2.3,0,0,0,0,0,0,0,0\n"
    labels = read_labels(write_labels(tmp_path, rows))
    assert labels.table.index.tolist() == ["1.2.3"]
    assert labels.notes == ("train.csv: 1 row has no valid StudyInstanceUID.",)


def test_other_values_than_0_and_1_become_null_with_a_note(tmp_path: Path) -> None:
    rows = "1.2.3,2,0,0,0,0,0,0,0\n1.2.4,1,yes,0,0,0,0,0,0\n1.2.5,0,0,0,0,0,0,0,0\n"
    labels = read_labels(write_labels(tmp_path, rows))
    assert labels.notes == ("train.csv: 2 rows have labels other than 0 and 1.",)
    assert labels.table.isna().sum().sum() == 2


def test_repeated_study_counts_once(tmp_path: Path) -> None:
    rows = "1.2.3,1,1,0,0,0,0,0,0\n1.2.3,1,1,0,0,0,0,0,0\n"
    labels = read_labels(write_labels(tmp_path, rows))
    assert labels.table["patient_overall"].tolist() == [1]
    assert len(labels.notes) == 1
    assert "1 row repeats a study" in labels.notes[0]


def test_rows_that_contradict_each_other_label_nothing(tmp_path: Path) -> None:
    rows = "1.2.3,1,1,0,0,0,0,0,0\n1.2.3,0,0,0,0,0,0,0,0\n1.2.4,0,0,0,0,0,0,0,0\n"
    labels = read_labels(write_labels(tmp_path, rows))
    assert labels.table.index.tolist() == ["1.2.4"]
    assert "1 study is unlabelled: 1.2.3" in labels.notes[1]


TABLE = "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n1.2.3,1,1,0,0,0,0,0,0\n"


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace(",", ";").encode(),
        TABLE.replace(",", "\t").encode(),
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace("\n", ",\n").encode(),
        TABLE.replace("C7\n", "C7,Größe\n").replace(",0\n", ",0,é\n").encode("latin-1"),
    ],
    ids=["semicolons", "tabs", "mark", "UTF-16", "Windows", "comma too many", "Latin"],
)
def test_tables_are_read_as_spreadsheets_write_them(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    labels = read_labels(Location(tmp_path))
    assert labels.table.loc["1.2.3"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert labels.notes == ()


def test_a_row_with_too_many_columns_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"{TABLE}1.2.4,0,0,0,0,0,0,0,0,7\n")
    labels = read_labels(Location(tmp_path))
    assert labels.table.index.tolist() == ["1.2.3"]
    assert "1 row has more columns" in labels.notes[0]


@pytest.mark.parametrize("value", ["inf", "-1e300", "nan", "x"])
def test_a_box_of_no_numbers_is_told(tmp_path: Path, value: str) -> None:
    head = "StudyInstanceUID,x,y,width,height,slice_number\n"
    rows = f"1.2.3,1,2,3,4,5\n1.2.3,1,2,{value},4,5\n1.2.3,1,2,3,4,{value}\n"
    (tmp_path / "train_bounding_boxes.csv").write_text(head + rows)
    boxes = read_boxes(Location(tmp_path))
    assert len(boxes.table) == 1
    assert "2 rows without a box" in boxes.notes[0]


def test_contradictions_are_found(tmp_path: Path) -> None:
    rows = (
        "1.2.1,0,1,0,0,0,0,0,0\n1.2.2,1,0,0,0,0,0,0,0\n"
        "1.2.3,1,0,0,0,0,0,0,1\n1.2.4,,1,0,0,0,0,0,0\n"
    )
    labels = read_labels(write_labels(tmp_path, rows))
    assert labels.contradictions() == ["1.2.1", "1.2.2"]


def test_absent_tables_are_empty(tmp_path: Path) -> None:
    assert read_labels(Location(tmp_path)).table.empty
    assert read_boxes(Location(tmp_path)).table.empty


def test_table_without_its_columns_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("StudyInstanceUID,C1\n1.2.3,0\n")
    with pytest.raises(SourceError, match="lacks the columns patient_overall, C2"):
        read_labels(Location(tmp_path))


def test_file_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(SourceError, match="is no CSV table"):
        read_labels(Location(tmp_path))


def test_first_source_wins(tmp_path: Path) -> None:
    first = write_labels(tmp_path / "a", "1.2.3,1,1,0,0,0,0,0,0\n")
    second = write_labels(
        tmp_path / "b", "1.2.3,0,0,0,0,0,0,0,0\n1.2.4,0,0,0,0,0,0,0,0\n"
    )
    table = read_all_labels([first, second]).table
    assert table["patient_overall"].to_dict() == {"1.2.3": 1, "1.2.4": 0}


def test_boxes_that_are_none_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "train_bounding_boxes.csv").write_text(
        "StudyInstanceUID,x,y,width,height,slice_number\n"
        "1.2.3,10.5,20,5,6,7\n1.2.3,1,1,0,6,7\n1.2.3,a,1,1,6,7\n../x,1,1,1,1,1\n"
    )
    boxes = read_boxes(Location(tmp_path))
    assert boxes.table.pop("sop_uid").isna().all()  # a table names no slices
    assert boxes.table.to_dict("records") == [
        {
            "study_uid": "1.2.3",
            "x": 10.5,
            "y": 20.0,
            "width": 5.0,
            "height": 6.0,
            "slice_number": 7,
        }
    ]
    assert len(boxes.notes) == 2


def test_real_tables_have_their_known_sizes() -> None:
    location = Location(require_material("rsna2022"))
    labels = read_labels(location)
    assert labels.notes == ()
    assert labels.contradictions() == []
    assert len(labels.table) == 2019
    assert labels.table.sum().to_dict() == {
        "patient_overall": 961,
        "C1": 146,
        "C2": 285,
        "C3": 73,
        "C4": 108,
        "C5": 162,
        "C6": 277,
        "C7": 393,
    }
    boxes = read_boxes(location)
    assert (len(boxes.table), boxes.table["study_uid"].nunique()) == (7217, 235)
    assert boxes.notes == ()


@pytest.mark.parametrize(
    ("row", "is_told"),
    [
        ("10,20,30,40,5", False),
        ("-0.5,20,30,40.4,5", False),
        ("480,20,40,40,5", True),
        ("10,500,30,40,5", True),
        ("-9,20,30,40,5", True),
        ("10,20,30,40,25", True),
        ("10,20,30,40,0", True),
    ],
)
def test_boxes_outside_of_their_study_are_named(
    tmp_path: Path, row: str, is_told: bool
) -> None:
    head = "StudyInstanceUID,x,y,width,height,slice_number\n"
    rows = f"1.2.3,1,2,3,4,5\n1.2.3,{row}\n1.2.4,9999,1,1,1,1\n"
    (tmp_path / "train_bounding_boxes.csv").write_text(head + rows)
    boxes = read_boxes(Location(tmp_path)).table
    rooms = {"1.2.3": BoxRoom(512, 512, range(1, 25))}
    told = tell_boxes_outside(boxes, rooms)
    assert bool(told) is is_told
    assert not told or ("1 study" in told[0] and told[0].endswith(" 1.2.3."))
