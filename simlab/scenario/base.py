"""What every scenario model shares: frozen, no unknown keys, and checks that say which field is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:/-]*$", max_length=80)]
"""The name of a class, pool, API or variant: it becomes a table row, a plot label and part of a path."""

CHECKS = "checks"
"""Type of the pydantic error that carries the faults of `Model.checks` in its context."""


class Fault(NamedTuple):
    """One inconsistency between fields.

    Attributes:
        path: keys and indices from the model that found it down to the field at fault.
        message: what was read, what is allowed and how to repair it.
    """

    path: tuple[str | int, ...]
    message: str


class Model(BaseModel):
    """Base of all scenario models."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, use_attribute_docstrings=False)

    def checks(self) -> Iterator[Fault]:
        """Yields what is inconsistent between the fields of this model, each of them valid by itself."""
        yield from ()

    @model_validator(mode="after")
    def _run_checks(self) -> Self:
        faults = list(self.checks())
        if faults:
            text = "; ".join(f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in faults)
            context: dict[str, Any] = {"text": text, "faults": faults}
            raise PydanticCustomError(CHECKS, "{text}", context)
        return self
