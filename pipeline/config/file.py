"""Reads a config from YAML and writes it; errors name file, key, what was found and what is valid."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from latency_models.errors import DeviceError
from latency_models.strict_yaml import StrictLoader, UnreadableYamlError, parse_yaml, read_yaml, shown
from pipeline.config.base import Section, ThirdParty
from pipeline.config.device import defined
from pipeline.config.run import RunConfig
from pipeline.errors import ConfigError, nearest
from pipeline.registry import is_dotted, third_party
from pipeline.tables import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

_Config = TypeVar("_Config", bound=RunConfig)


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a config file.

    Args:
        path: a YAML file.
        overrides: `key.path=value` texts; the value is read as YAML.

    Raises:
        ConfigError: the file is missing, no YAML, or wrong in a key, a type or a value.
    """
    return parse_config(read_values(path, overrides or []), str(path))


def read_values(path: Path, overrides: list[str]) -> dict[str, Any]:
    """Read a config file's mapping, and apply `key.path=value` texts to it; nothing is checked yet.

    Raises:
        ConfigError: the file is missing or no YAML, or a text hasn't that form.
    """
    values = _read_yaml(path)
    for text in overrides:
        _override(values, text)
    return values


def parse_config(values: dict[str, Any], source: str) -> RunConfig:
    """Check a mapping against the models; `source` is named in errors.

    Raises:
        ConfigError: with one sentence for each wrong key.
    """
    return parse_as(RunConfig, values, source)


def parse_as(
    model: type[_Config],
    values: dict[str, Any],
    source: str,
    problems: Sequence[str] = (),
    reported: Sequence[str] = (),
) -> _Config:
    """Check a mapping against a kind of config.

    Args:
        model: the kind.
        values: the mapping; a section may have been read by its own model already.
        source: the config's name in errors.
        problems: sentences about mistakes that are known already, to be reported with the others.
        reported: keys of those mistakes, which are missing from the mapping.

    Raises:
        ConfigError: with one sentence for each wrong key.
    """
    problems = list(problems)
    resolved = dict(values)
    for kind in SECTIONS:
        if kind in values and kind in model.model_fields:
            try:
                resolved[kind] = read_section(kind, values[kind], model.model_fields[kind].default)
            except WrongSection as wrong:
                problems += wrong.sentences
                resolved.pop(kind)
    if "device" in values:
        try:
            resolved["device"] = defined(values["device"])
        except DeviceError as error:
            problems.append(f"device.name: {error}")
            resolved.pop("device")
    try:
        config = model.model_validate(resolved)
    except ValidationError as error:
        own = [_sentence(model, (), e) for e in error.errors() if not _answered(e, [*values, *reported])]
        raise ConfigError(source, problems + own) from None
    if problems:
        raise ConfigError(source, problems)
    return config


def parse_section(kind: str, value: Any, source: str) -> Section:
    """Read one section that is chosen by name; `source` is named in errors.

    Raises:
        ConfigError: with one sentence for each wrong key.
    """
    try:
        return read_section(kind, value, RunConfig.model_fields[kind].default)
    except WrongSection as wrong:
        raise ConfigError(source, wrong.sentences) from None


class WrongSection(Exception):  # noqa: N818 - carries sentences from a section to the message of the whole config
    """A section is wrong; `sentences` has one for each key."""

    def __init__(self, sentences: list[str]) -> None:
        self.sentences = sentences


def read_section(kind: str, value: Any, default: Any = None, place: str | None = None) -> Section:
    """Read a section by the model of its `name`, so that errors are about that model's options only.

    Args:
        kind: of the section.
        value: its content.
        default: a section whose name is taken where none is given.
        place: its key path in errors, by default the kind.

    Raises:
        WrongSection: it has no name, an unknown one, or wrong options.
    """
    table, place = SECTIONS[kind], place or kind
    if isinstance(value, dict) and "name" not in value and isinstance(default, Section):
        value = {"name": default.name, **value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise WrongSection(
            [f"{place}: needs a mapping with a name, found {shown(value)}; valid names: {', '.join(table)}"]
        )
    name = value["name"]
    if name not in table and not is_dotted(name) and name not in third_party(kind):
        raise WrongSection([f"{place}.name: unknown {kind} {shown(name)}{nearest(name[:80], table)}"])
    model: type[Section] = table[name].options_model() if name in table else ThirdParty
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise WrongSection([_sentence(model, (place,), e) for e in error.errors()]) from None


def _answered(error: ErrorDetails, given: Sequence[str]) -> bool:
    """Whether the error is about a section that is only missing since it was reported before."""
    return error["type"] == "missing" and error["loc"][0] in given


def dump_config(config: RunConfig) -> str:
    """The config as YAML, with all defaults written out."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path, _Yaml)
    except UnreadableYamlError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        raise ConfigError(str(path), ["no such file" + _near_file(path) if missing else str(error)]) from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(str(path), [f"needs a mapping of keys to values, found {found}"])
    return values


class _Yaml(StrictLoader):
    """Strict YAML in which 1e-3 is a number, as in YAML 1.2."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _near_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    others = [str(p) for p in sorted(path.parent.glob("*.y*ml"))]
    close = difflib.get_close_matches(str(path), others, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}", ["needs the form key.path=value"])
    try:
        value = parse_yaml(raw, _Yaml)
    except UnreadableYamlError as error:
        raise ConfigError(f"--set {text}", [f"the value: {error}"]) from None
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {text}", [f"{parent} is a {type(child).__name__}, not a mapping"])
        node = child
    node[last] = value


def _sentence(model: type[BaseModel], prefix: tuple[str, ...], error: ErrorDetails) -> str:
    """A sentence about an error: key path, what was found, what is valid, the nearest match."""
    location = [part for part in error["loc"] if part != "[key]"]
    path = ".".join(str(part) for part in (*prefix, *location)) or "the config"
    found = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key{nearest(str(location[-1]), _keys_at(model, location[:-1]))}"
        case "missing":
            names = SECTIONS.get(path)
            return f"{path}: is required" + (f"; valid names: {', '.join(names)}" if names else "")
        case "literal_error":
            valid = [v.strip(" '") for v in str(error["ctx"]["expected"]).replace(" or ", ", ").split(",")]
            return f"{path}: found {shown(found)}{nearest(str(found)[:80], valid)}"
        case "model_type":
            return f"{path}: needs a mapping of keys to values, found {shown(found)}"
        case _:
            message = error["msg"][:1].lower() + error["msg"][1:]
            return f"{path}: {message}" + ("" if isinstance(found, (dict, BaseModel)) else f", found {shown(found)}")


def _keys_at(model: type[BaseModel], location: list[int | str]) -> list[str]:
    """Valid keys of the mapping at a location inside a model."""
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
