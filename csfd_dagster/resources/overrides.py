"""What resources have in common: their fields stand above the environment's settings.

A field that is not set leaves the choice to its variable, which is read when a run
starts, never when the definitions load.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from csfd_core.settings import Environment, variable_of


def override_of(group: type[Environment], name: str, setting: str = "") -> Any:  # noqa: ANN401 - as Field
    """Return the field of a resource that stands above a setting.

    Args:
        group: The setting's group.
        name: The setting.
        setting: Nothing, or what the field is in place of the setting's description.
    """
    described = setting or group.model_fields[name].description
    return Field(default=None, description=f"{described} {variable_of(group, name)}.")


def given(resource: dg.ConfigurableResource, *names: str) -> dict[str, Any]:
    """Return the fields of a resource that are set."""
    values = {name: getattr(resource, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
