"""What a reader's page sends: a draft, or what is to be signed. Checked on the way in.

A refusal says where something is wrong, and repeats nothing of what was sent.
"""

import re
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar

import pydantic
from fastapi import Depends, HTTPException, Request

from csfd_core.store.label_notes import LARGEST_PX, MOST_BOXES
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.security.sessions import Session, require_session

LARGEST_BODY: Final = 64 * 1024  # bytes
MOST_COMMENT: Final = 2000  # characters
_MOST_SLICES: Final = 100_000
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_Edge = Annotated[float, pydantic.Field(gt=-1, le=LARGEST_PX, allow_inf_nan=False)]
_Side = Annotated[float, pydantic.Field(gt=0, le=LARGEST_PX, allow_inf_nan=False)]
_Level = Literal[LEVEL_NAMES]  # type: ignore[valid-type]


class Answer(StrEnum):
    """What a reader says of one vertebra."""

    FRACTURED = "fractured"
    WHOLE = "whole"
    NOT_ASSESSABLE = "not_assessable"

    @property
    def label(self) -> int | None:
        """As a label: 1 fractured, 0 whole, else ``None``."""
        return {Answer.FRACTURED: 1, Answer.WHOLE: 0}.get(self)


class DrawnBox(pydantic.BaseModel):
    """A box on one slice, in pixels; (0, 0) is the outer corner of the first."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    level: _Level
    slice_index: Annotated[int, pydantic.Field(ge=0, le=_MOST_SLICES)]
    x: _Edge
    y: _Edge
    width: _Side
    height: _Side


class ReviewForm(pydantic.BaseModel):
    """A review, signed or not: answers by level, boxes, a comment.

    ``version`` is that of the study which the page has shown.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    version: Annotated[int, pydantic.Field(ge=1, le=2**31 - 1)]
    levels: dict[_Level, Answer | None] = {}
    boxes: Annotated[list[DrawnBox], pydantic.Field(max_length=MOST_BOXES)] = []
    comment: Annotated[str, pydantic.Field(max_length=MOST_COMMENT)] = ""

    @pydantic.field_validator("comment")
    @classmethod
    def _is_text(cls, value: str) -> str:
        if _CONTROL.search(value):
            raise ValueError("has characters that are no text")
        return value.strip()

    @property
    def answers(self) -> dict[str, Answer | None]:
        """The answer of every level."""
        return {name: self.levels.get(name) for name in LEVEL_NAMES}


_Form = TypeVar("_Form", bound=pydantic.BaseModel)


def body_of(form: type[_Form]) -> Callable[..., Awaitable[_Form]]:
    """Return a dependency that reads and checks the JSON body of a signed-in reader.

    Nothing of a body is read before the session is known, and never more than
    ``LARGEST_BODY``.
    """

    async def read(
        request: Request, session: Annotated[Session, Depends(require_session)]
    ) -> _Form:
        del session
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > LARGEST_BODY:
                raise HTTPException(413, "The review is too large: up to 64 KB.")
        try:
            return form.model_validate_json(bytes(content))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            told = f"The review cannot be used: {_field_path(form, first['loc'])}"
            raise HTTPException(422, f"{told}{first['msg']}.") from None

    return read


def described(form: type[pydantic.BaseModel]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that ``body_of`` reads."""
    schema = form.model_json_schema()
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inlined(schema, schema)}},
        }
    }


def _inlined(part: Any, whole: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return a schema with what it refers to in place: it stands alone."""
    if isinstance(part, list):
        return [_inlined(one, whole) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(whole["$defs"][part["$ref"].rpartition("/")[2]], whole)
    return {name: _inlined(v, whole) for name, v in part.items() if name != "$defs"}


def _field_path(form: type[pydantic.BaseModel], parts: tuple[int | str, ...]) -> str:
    fields = {*form.model_fields, *DrawnBox.model_fields, *LEVEL_NAMES}
    named = [
        str(part) if isinstance(part, int) or part in fields else "an unknown entry"
        for part in parts
    ]
    return f"{'.'.join(named)}: " if named else ""
