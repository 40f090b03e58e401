"""The paragraph follows the numbers, whatever they are."""

import math
from dataclasses import replace

import pytest
from support.leakage_store import slices_of

from csfd_core.data_kind import DataKind
from csfd_core.evaluation.bootstrap import Interval
from csfd_core.reports.leakage.audit import Audit, ProtocolResult
from csfd_core.reports.leakage.config import AuditConfig
from csfd_core.reports.leakage.protocols import BY_PATIENT, FIRST_ATTEMPT, build_splits
from csfd_core.reports.leakage.report import build_report, say
from csfd_core.text import share_of

NAN = math.nan


def interval(estimate: float, low: float = NAN, high: float = NAN) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, draws=1000, undefined=0)


UNKNOWN = interval(NAN)
HONEST_LOW = interval(0.49, 0.34, 0.64)
HONEST_HIGH = interval(0.97, 0.94, 0.99)


def audit_of(honest: Interval, *pretended: Interval, seen: float = 1.0) -> Audit:
    """An audit with an AUC of 1 for the first attempt and 0.9 for random slices."""
    slices = slices_of([f"patient {number}" for number in range(30)])
    splits = build_splits(slices, seed=0)
    auc = (interval(1.0, 1.0, 1.0), interval(0.9, 0.85, 0.94), honest)
    shares = ((seen, 1.0), (0.0, 1.0), (0.0, 0.0))
    results = tuple(
        ProtocolResult(
            protocol=split.name,
            title=split.title,
            auc=auc[place],
            pretended=(*pretended, UNKNOWN)[place],
            training_auc=1.0,
            f1=0.5,
            threshold=0.5,
            loss=0.7,
            training_slices=split.training.size,
            validation_slices=split.validation.size,
            test_slices=split.test.size,
            test_patients=5,
            slices_seen_in_training=shares[place][0],
            patients_seen_in_training=shares[place][1],
        )
        for place, split in enumerate(splits)
    )
    return Audit(
        results=results,
        splits=splits,
        slices=slices,
        config=AuditConfig(steps=7),
        data_kind=DataKind.PHANTOM,
        inputs="0" * 64,
    )


def explain(audit: Audit) -> str:
    return say("auc", audit=audit)


def change(audit: Audit, protocol: str, **values: object) -> Audit:
    results = tuple(
        replace(r, **values) if r.protocol == protocol else r  # type: ignore[arg-type]
        for r in audit.results
    )
    return replace(audit, results=results)


def test_pretended_auc_is_named_with_its_interval() -> None:
    gaps = (interval(0.51, 0.36, 0.66), interval(0.41, 0.24, 0.57))
    text = explain(audit_of(HONEST_LOW, *gaps))
    assert "for 7 steps on the same 120 slices of 30 studies (30 patients)" in text
    assert "all of its test slices are training slices" in text
    assert "AUC of 1.000 (95 % interval 1.000 to 1.000)" in text
    assert "0.490 (95 % interval 0.340 to 0.640), not to be told from guessing" in text
    assert "first attempt +0.510 (+0.360 to +0.660)" in text
    assert "slices at random +0.410 (+0.240 to +0.570), is pretended" in text


def test_a_high_honest_auc_does_not_excuse_the_others() -> None:
    gaps = (interval(0.03, -0.01, 0.06), interval(-0.02, -0.05, 0.02))
    text = explain(audit_of(HONEST_HIGH, *gaps))
    assert "better than guessing on patients it has never seen" in text
    assert "is pretended" not in text
    assert "Not to be told from the split by patient: first attempt +0.030" in text
    assert "slices at random −0.020 (−0.050 to +0.020)" in text
    assert "no better" in text


def test_one_may_pretend_and_the_other_not() -> None:
    gaps = (interval(0.03, 0.01, 0.06), interval(-0.07, -0.12, -0.02))
    text = explain(audit_of(HONEST_HIGH, *gaps))
    assert "above that, first attempt +0.030 (+0.010 to +0.060), is pretended" in text
    assert "Below the split by patient: slices at random −0.070" in text


def test_worse_than_guessing_is_said() -> None:
    gaps = (interval(0.7, 0.6, 0.8), interval(0.6, 0.5, 0.7))
    text = explain(audit_of(interval(0.3, 0.2, 0.4), *gaps))
    assert "worse than guessing" in text


def test_one_class_in_the_honest_test_set() -> None:
    text = explain(audit_of(UNKNOWN, UNKNOWN, UNKNOWN))
    assert "Split by patient, the AUC is undefined, as its test slices are" in text
    assert "one class only: what the other protocols pretend cannot be" in text
    assert "is pretended" not in text
    assert "nan" not in text


def test_no_locked_patient_at_all() -> None:
    audit = audit_of(UNKNOWN, UNKNOWN, UNKNOWN)
    text = explain(change(audit, BY_PATIENT, test_slices=0, test_patients=0))
    assert "undefined, as there are no test slices" in text


def test_a_network_that_learnt_nothing_by_heart() -> None:
    gaps = (interval(0.1, -0.1, 0.3), interval(0.1, -0.1, 0.3))
    audit = audit_of(HONEST_LOW, *gaps)
    text = explain(change(audit, FIRST_ATTEMPT, training_auc=0.71))
    assert "has not learnt its training slices by heart (AUC 0.710" in text
    assert "knows its training slices by heart" not in text


def test_an_undefined_first_attempt() -> None:
    audit = audit_of(HONEST_LOW, UNKNOWN, interval(0.4, 0.2, 0.6))
    text = explain(change(audit, FIRST_ATTEMPT, auc=UNKNOWN, training_auc=NAN))
    assert "its AUC is undefined, as its test slices are of one class" in text
    assert "not to be told from guessing" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "none"),
        (0.001, "less than 1 %"),
        (0.5, "50 %"),
        (0.999, "more than 99 %"),
        (1.0, "all"),
        (NAN, "none"),
    ],
)
def test_shares_are_never_rounded_to_all_or_nothing(share: float, text: str) -> None:
    assert share_of(share) == text


def test_the_page_warns_of_the_phantom_and_shows_undefined_numbers() -> None:
    page = build_report(audit_of(UNKNOWN, UNKNOWN, UNKNOWN))
    assert page.banner is not None
    assert "no patient" in page.banner
    assert [section.key for section in page.sections] == ["auc", "protocols", "method"]
    assert all(section.figure is not None for section in page.sections[:2])
