"""The settings as the documentation shows them.

``python -m csfd_core.settings_page`` prints the table of all.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic.fields import FieldInfo

from csfd_core.settings import GROUPS, Environment, allowed_values, variable_of


def markdown_table(groups: Iterable[type[Environment]]) -> str:
    """Return the settings of some groups as the documentation shows them."""
    lines = ["| variable | default | may be | what it is |", "|---|---|---|---|"]
    for group in groups:
        for name, field in group.model_fields.items():
            cells = (
                f"`{variable_of(group, name)}`",
                _shown_default(field),
                allowed_values(group, name),
                str(field.description),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown_default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, Mapping) and "shown" in extra:
        return str(extra["shown"])
    # Below the current folder, whichever that is.
    value = field.get_default(
        call_default_factory=True, validated_data={"home": Path()}
    )
    return f"`{int(value) if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(f"{markdown_table(GROUPS)}\n")
