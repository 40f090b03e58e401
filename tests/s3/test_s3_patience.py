"""How often a request to S3 is made again, before it is said that S3 is away."""

import pytest

from csfd_core.store.filesystems import open_filesystem


@pytest.mark.parametrize(
    ("variable", "attempts"), [(None, 5), ("15", 15), ("", 5), ("many", 5), ("0", 5)]
)
def test_attempts_are_those_of_the_variable_of_aws(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, attempts: int
) -> None:
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    if variable is not None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", variable)
    retries = open_filesystem("s3://bucket/store").config_kwargs["retries"]
    assert retries == {"total_max_attempts": attempts, "mode": "standard"}
