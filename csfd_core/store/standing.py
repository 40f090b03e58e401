"""Which studies of a table may be used: those that are not quarantined.

``status`` is the column of the table of studies that tells a study's standing
(``csfd_core.dicom.findings.Status``).
"""

import pandas as pd

from csfd_core.dicom.findings import Status


def is_quarantined(studies: pd.DataFrame) -> pd.Series:
    """Say of each row of a table of studies whether it must not be used."""
    return studies["status"] == Status.QUARANTINED


def usable_studies(studies: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table of studies that may be used."""
    return studies[~is_quarantined(studies)]
