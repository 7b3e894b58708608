"""The fields of a configuration file, each checked when it is taken."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.interop.tensors import read_json
from kaft_promot.models import T5Config

REQUIRED = object()
# What a field holds, as `T5Config` declares it: (a test of JSON's value, words for messages).
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda x: type(x) is int, "an integer"),
    "float": (lambda x: type(x) in (int, float), "a number"),
    "bool": (lambda x: type(x) is bool, "true or false"),
    "str": (lambda x: isinstance(x, str), "a text"),
    "tuple[str, ...]": (
        lambda x: isinstance(x, list) and all(isinstance(part, str) for part in x),
        "a list of texts",
    ),
}


@dataclasses.dataclass(frozen=True)
class Fields:
    """A JSON object and the file that holds it, which every complaint names."""

    values: Mapping[str, Any]
    path: pathlib.Path

    @classmethod
    def read(cls, path: pathlib.Path) -> "Fields":
        """The object in a JSON file.

        Raises:
          UserError: as `read_json`.
        """
        return cls(read_json(path), path)

    def take(self, name: str, kind: str, default: Any = REQUIRED) -> Any:
        """A field's value.

        Args:
          name: of the field.
          kind: 'int', 'float' (an integer will do), 'bool', 'str', or 'tuple[str, ...]' for a list.
          default: for a field that is not there; with None, `null` is as good as absent.

        Raises:
          UserError: if a field without default is not there, or its value is of another type.
        """
        value = self.values.get(name, default)
        if value is REQUIRED:
            raise UserError(f"{self.path}: the field {name} is missing")
        if value is default:
            return value
        fits, words = _KINDS[kind]
        if not fits(value):
            found = "null" if value is None else repr(value)
            raise UserError(f"{self.path}: {name} is {found}, not {words}")
        return tuple(value) if isinstance(value, list) else value

    def network(self, **sizes: Any) -> T5Config:
        """A network of these sizes.

        Raises:
          UserError: if no network can have them.
        """
        try:
            return T5Config(**sizes)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error
