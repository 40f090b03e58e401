"""How settings are read: one environment variable each, on use.

Nothing is read when this is imported; nothing else reads ``CSFD_*``. What a command or
a resource was given by name comes first, then the environment, then the default.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema
from pydantic_settings import BaseSettings, SettingsConfigDict

from csfd_core.cron import is_cron
from csfd_core.errors import SettingsError

PREFIX: Final = "CSFD_"
_NUMBERS: Final = {"integer": "a whole number", "number": "a number"}


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _require_cron(text: str) -> str:
    if not is_cron(text):
        raise ValueError(text)
    return text


def below_home(path: str) -> Callable[[dict[str, Any]], str]:
    """Return the default of a place that lies below ``CSFD_HOME``."""
    return lambda values: str(values["home"] / path)


FolderOrUrl = Annotated[
    str,
    AfterValidator(_absolute),
    WithJsonSchema({"allowed": "a folder or an s3:// URL"}),
]
Folder = Annotated[
    Path,
    AfterValidator(lambda path: path.expanduser().absolute()),
    WithJsonSchema({"allowed": "a folder"}),
]
Cron = Annotated[
    str,
    AfterValidator(_require_cron),
    WithJsonSchema({"allowed": "a cron string like '0 2 * * *'"}),
]
Count = Annotated[int, Field(ge=1)]
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Environment(BaseSettings):
    """What all groups of settings have in common: how they are read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        populate_by_name=True,
        validate_default=True,
        extra="ignore",
        frozen=True,
    )

    @classmethod
    def read(cls, **given: object) -> Self:
        """Read the settings of this group.

        Args:
            given: Values that come before those of the environment; ``None``: not
                given.

        Raises:
            SettingsError: If one of them cannot be used.
        """
        try:
            return cls(**{name: v for name, v in given.items() if v is not None})
        except ValidationError as error:
            raise SettingsError(_tell(cls, error)) from None

    @classmethod
    def given(cls) -> tuple[tuple[str, str | None], ...]:
        """Return the variables of this group as they stand; ``None``: not set."""
        names = (variable_of(cls, name) for name in cls.model_fields)
        return tuple((name, os.environ.get(name)) for name in names)

    def export(self, *names: str) -> None:
        """Set the variables of what is not left to its default, and of ``names``.

        For this process and those that it starts.
        """
        for name in self.model_fields_set | set(names):
            os.environ[variable_of(type(self), name)] = str(getattr(self, name))


def take_over(given: Iterable[tuple[str, str | None]]) -> None:
    """Set variables as they stand in another process, which has told them.

    Args:
        given: As ``Environment.given`` returns.
    """
    for name, value in given:
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value


def variable_of(group: type[Environment], name: str) -> str:
    """Return the environment variable of a field."""
    alias = group.model_fields[name].validation_alias
    return str(alias or f"{group.model_config['env_prefix']}{name}".upper())


def allowed_values(group: type[Environment], name: str) -> str:
    """Say what a setting may be."""
    schema = group.model_json_schema(by_alias=False)["properties"][name]
    if "allowed" in schema:
        return str(schema["allowed"])
    schema = schema.get("anyOf", [schema])[0]  # the other one is null
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if schema["type"] not in _NUMBERS:
        return "1 or 0" if schema["type"] == "boolean" else "text"
    words = _NUMBERS[schema["type"]]
    if "maximum" in schema:
        return f"{words} from {schema['minimum']} to {schema['maximum']}"
    if "minimum" in schema:
        return f"{words} of at least {schema['minimum']:g}"
    return words


def _tell(group: type[Environment], error: ValidationError) -> str:
    """Say which setting is wrong first, what it was, and what it may be."""
    first = error.errors()[0]
    names = {variable_of(group, name): name for name in group.model_fields}
    field_name = str(first["loc"][0])
    name = names.get(field_name, field_name)
    told = f"{variable_of(group, name)} must be {allowed_values(group, name)}."
    extra = group.model_fields[name].json_schema_extra
    is_secret = isinstance(extra, Mapping) and extra.get("secret")
    return told if is_secret else f"{told} Received: {first['input']}."
