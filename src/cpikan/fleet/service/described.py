"""The doors of the service in words: what OpenAPI's document says of each, for the page that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Taken:
    """Something that a door takes: its name, where it is given, what it may be, and whether it has to be there."""

    name: str
    where: str
    kind: str
    needed: bool
    says: str


@dataclass(frozen=True)
class Described:
    """A door: method and path, what it does, what it takes, and what it answers, by code."""

    method: str
    path: str
    says: str
    takes: tuple[Taken, ...]
    answers: tuple[tuple[str, str], ...]


def described(document: Document) -> dict[str, list[Described]]:
    """Read the doors out of OpenAPI's document, by their tag."""
    found: dict[str, list[Described]] = {}
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            answers = tuple((code, answer["description"]) for code, answer in sorted(one["responses"].items()))
            says = one.get("description") or one.get("summary", "")
            door = Described(method.upper(), path, says, tuple(_taken(one, document)), answers)
            found.setdefault((one.get("tags") or [""])[0], []).append(door)
    return found


def _taken(one: Document, document: Document) -> Iterator[Taken]:
    for given in one.get("parameters", ()):
        schema = given.get("schema", {})
        yield Taken(given["name"], given["in"], _kind(schema, document), given.get("required", False), _says(schema))
    for content, given in one.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(given.get("schema", {}), document)
        needed = schema.get("required", ())
        for name, field in schema.get("properties", {}).items():
            yield Taken(name, f"body, {content}", _kind(field, document), name in needed, _says(field))


def _says(schema: Document) -> str:
    default = schema.get("default")
    parts = [schema.get("description", ""), "" if default is None else f"{default} unless given"]
    return "; ".join(part for part in parts if part)


def _kind(schema: Document, document: Document) -> str:
    """Say what a value may be: choices, a type with its bounds, or one of several."""
    schema = _resolved(schema, document)
    if "enum" in schema:
        return " | ".join(str(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        kinds = [_kind(one, document) for one in schema["anyOf"]]
        return " or ".join(kind for kind in kinds if kind != "null")
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}), document)}"
    bounds = [f"{word} {schema[key]}" for word, key in (("from", "minimum"), ("to", "maximum")) if key in schema]
    return " ".join([kind, *bounds])


def _resolved(schema: Document, document: Document) -> Document:
    """Follow a reference to a part of the document."""
    while "$ref" in schema:
        found: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema
