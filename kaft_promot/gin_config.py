"""Gin configuration from the command line, spoken as T5X speaks it.

T5X's runs are configured by gin files (`--gin_file`, found in `--gin_search_paths`), overridden by
flags such as `--gin.BATCH_SIZE=64`. This file parses them, and checks before any work starts that
nothing is misspelled: gin itself ignores a macro that nothing uses, so a run with
`--gin.TRAIN_STEP=100` would go its own way in silence.

In a gin file `NAME = value` defines a *macro*, `%NAME` uses it, and `function.parameter = value` is
a *binding*. All messages use the names that the user typed.
"""

import contextlib
import difflib
import functools
import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin

from kaft_promot.errors import UserError
from kaft_promot.gin_values import check_values

# `NAME = ...`, `scope/function.parameter = ...`, or the first line of a block, `scope/function:`
_LEFT_SIDE = re.compile(r"^([A-Za-z_][\w./]*)\s*(=(?!=)|:\s*(?:#.*)?$)")
_GIN_FLAG = "--gin."
# Values that a run gets through a reference such as `OPTIMIZER = @AdamW()` and in no other way.
_BY_REFERENCE = frozenset(
    ("Adafactor", "AdamW", "Lora", "MeshConfig", "Muon", "Specialization", "Stage", "T5Config")
)
_KEPT = "# The whole configuration of a run, kept by kaft-promot.\n"


class UnknownName(UserError):
    """A binding or reference names a function that nothing has registered."""


def packaged_gin_folder() -> pathlib.Path:
    """The folder of the gin files that come with the package.

    It is `kaft_promot/gin` in an installed package and `gin` beside the library in a checkout.
    """
    package = pathlib.Path(__file__).resolve().parent
    installed = package / "gin"
    return installed if installed.is_dir() else package.parent / "gin"


def split_gin_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes `--gin.NAME=VALUE` flags out of a command line.

    Returns:
      The other arguments, and the bindings as `NAME=VALUE` in their order.
    """
    others: list[str] = []
    bindings: list[str] = []
    for argument in arguments:
        if not argument.startswith(_GIN_FLAG):
            others.append(argument)
            continue
        name, equals, value = argument[len(_GIN_FLAG) :].partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UserError(f"{argument}: write --gin.NAME=VALUE, for example --gin.BATCH_SIZE=64")
        bindings.append(f"{name.strip()}={value.strip()}")
    return others, bindings


# What model files set, in whatever order the files come; without one, the checkpoint's own.
OWN_MODEL: Mapping[str, Any] = {"MODEL": None, "VOCABULARY": None}


def parse_gin(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Replaces the gin configuration by that of files and bindings, and checks it.

    Later files win over earlier ones and bindings over files, as in T5X. Files are searched in the
    current folder, then in `search_paths`, then in the package's gin folder (so `runs/train.gin`
    is found everywhere).

    Args:
      files: gin files.
      bindings: `NAME=VALUE` strings; a VALUE that is no gin value is taken as a string, so that
        `MODEL_DIR=/tmp/a` means `MODEL_DIR='/tmp/a'`.
      search_paths: folders.
      defaults: macros that hold unless a file or a binding says otherwise, in whatever order the
        files come.

    Raises:
      UserError: for a missing file, a syntax error, an unknown parameter, a macro or binding that
        nothing uses, a required macro without a value, and a value that its function cannot take;
        `UnknownName` for an unknown function.
    """
    gin.clear_config()
    # gin also looks a path up as a Python package, and falls over where a folder of the user's (the
    # `runs/` of earlier trainings, say) can be imported as one. Files are files here.
    gin.config._FILE_READERS[:] = [(open, os.path.isfile)]
    for name, default in (defaults or {}).items():
        gin.bind_parameter((name, "gin.macro", "value"), default)
    folders = [*search_paths, str(packaged_gin_folder())]
    for folder in folders:
        if folder not in gin.config._LOCATION_PREFIXES:
            gin.add_config_file_search_path(folder)
    defined: dict[str, str] = {}  # what the user set -> where
    # What any file refers to, also where a later file or flag overrides the reference.
    macros: set[str] = set()
    scopes: set[str] = set()
    values: set[str] = set()
    for file in files:
        path = _find_gin_file(file, folders, f"--gin_file={file}")
        defined |= _left_sides(path, folders)  # also finds missing includes before gin does
        _run_parser(functools.partial(gin.parse_config_file, str(path)), str(path))
        _collect_references(macros, scopes, values)
    for binding in bindings:
        name, _, value = binding.partition("=")
        where = f"{_GIN_FLAG}{binding}"
        text = _as_gin_value(name, value, where)
        _run_parser(functools.partial(gin.parse_config, f"{name} = {text}"), where)
        _collect_references(macros, scopes, values)
        defined[name] = where
    _check_required()
    _check_used(defined, macros, scopes, values)
    check_values(defined)


def import_task_files() -> None:
    """Imports every file of `kaft_promot.tasks`, so that gin knows their configurable functions.

    Files that cannot be imported are passed over: using their tasks will say why.
    """
    tasks = importlib.import_module("kaft_promot.tasks")
    for file in pkgutil.iter_modules(tasks.__path__):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{tasks.__name__}.{file.name}")


def macro_value(name: str) -> Any:
    """The value of a macro in the present configuration, or None."""
    return gin.config._CONFIG.get((name, "gin.macro"), {}).get("value")


def whole_config() -> str:
    """The present configuration as a gin file: everything that was set, used or not."""
    return _KEPT + gin.config_str()


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a gin-configurable function, with gin's own complaints as `UserError`."""
    try:
        return function(*args, **kwargs)
    except UserError as error:
        # gin appends where in the configuration the call came from; the first line is ours
        raise UserError(str(error).split("\n  In call to configurable")[0]) from error
    except (RuntimeError, TypeError) as error:
        text = str(error)
        missing = re.search(
            r"Required bindings for `(\S+)` not provided in config: (\[.*?\])", text
        )
        missing = missing or re.search(
            r"(\w+)\(\) missing \d+ required .*?No values supplied by Gin or caller for "
            r"arguments: (\[.*?\])",
            text,
            re.DOTALL,
        )
        if missing is None:
            raise
        name, parameters = missing.groups()
        first = re.sub(r"[\[\]'\" ]", "", parameters).split(",")[0]
        if name == "macro":
            scope = re.search(r"in scope '([^']+)'", text)
            macro = scope.group(1) if scope else "?"
            raise UserError(f"%{macro} is used but has no value: add --gin.{macro}=...") from error
        raise UserError(
            f"{name} needs a value for {parameters}: add --gin.{name}.{first}=..."
        ) from error


def _find_gin_file(file: str, folders: Sequence[str], where: str) -> pathlib.Path:
    candidates = [pathlib.Path(folder, file) for folder in ("", *folders)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    packaged = packaged_gin_folder()
    known = [path.relative_to(packaged).as_posix() for path in sorted(packaged.rglob("*.gin"))]
    raise UserError(
        f"{where}: no file {file} here or in {', '.join(folders)}{_similar(file, known)}"
    )


def _run_parser(parse: Callable[[], Any], where: str) -> None:
    """Runs one gin parse; any complaint becomes one line that starts with the place."""
    try:
        parse()
    except UserError:
        raise
    except tokenize.TokenError as error:
        reason, (line, _) = error.args
        raise UserError(f"{_place(where, line)}: {reason}") from error
    except SyntaxError as error:
        file = where
        if error.filename and pathlib.Path(where).name != error.filename:
            file = error.filename  # an included file
        reason = str(error.msg).split("\n")[-1].strip()
        reason = re.sub(r"\s*\([^)]*line \d+\)$", "", reason)
        raise UserError(f"{_place(file, error.lineno)}: not valid gin: {reason}") from error
    except Exception as error:
        kind = UnknownName if "No configurable matching" in str(error) else UserError
        raise kind(_one_line(error, where)) from error


def _place(where: str, line: int | None) -> str:
    return where if where.startswith("--") or line is None else f"{where}:{line}"


def _one_line(error: Exception, where: str) -> str:
    text = str(error)
    place = re.search(r'In file "([^"]+)", line (\d+)', text)
    if place:
        where = f"{place.group(1)}:{place.group(2)}"
    reason = text.split("\n")[0].strip().rstrip(".") or type(error).__name__
    unknown = re.match(r"No configurable matching '([^']+)'", reason)
    parameter = re.match(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", reason)
    if unknown:
        reason += _similar(unknown.group(1), _configurable_names())
    elif parameter:
        reason += _similar(parameter.group(2), _parameter_names(parameter.group(1)))
    return f"{where}: {reason}"


def _similar(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _configurable_names() -> list[str]:
    names = {selector.rsplit(".", 1)[-1] for selector, _ in gin.config._REGISTRY.items()}
    return sorted(names)


def _parameters(selector: str) -> dict[str, inspect.Parameter]:
    found = gin.config._REGISTRY.get_match(selector)
    return dict(inspect.signature(found.wrapped).parameters) if found else {}


def _parameter_names(selector: str) -> list[str]:
    return sorted(_parameters(selector))


def _as_gin_value(name: str, value: str, where: str) -> str:
    """The value as gin reads it; what is no gin value becomes a quoted string."""
    try:
        delegate = gin.config.ParserDelegate(skip_unknown=True)
        for _ in gin.config_parser.ConfigParser(f"value = {value}", delegate):
            pass
        return value
    except (SyntaxError, tokenize.TokenError) as error:
        if value.lower() in ("true", "false", "none"):
            raise UserError(f"{where}: write {value.capitalize()}") from error
        if value[0] in "0123456789+-'\"[({%@":
            raise UserError(f"{where}: not a gin value; put text in quotes: \"'...'\"") from error
        expected = type(_present_value(name))
        if expected in (bool, int, float, dict, list, tuple):
            article = "an" if expected is int else "a"
            raise UserError(f"{where}: expected {article} {expected.__name__}") from error
        return repr(value)


def _present_value(name: str) -> Any:
    """The value that a macro or parameter has before it is overridden, or None."""
    if "." not in name:
        return macro_value(name)
    *_, target = name.split("/")
    selector, parameter = target.rsplit(".", 1)
    default = _parameters(selector).get(parameter)
    return None if default is None else default.default


def _left_sides(path: pathlib.Path, folders: Sequence[str]) -> dict[str, str]:
    """What a file and the files that it includes set, each with its place.

    Macros are under their names, bindings as `scope/function.parameter`, blocks as
    `scope/function:`. The package's own files are left out: they may say more than one verb uses.
    """
    if path.resolve().is_relative_to(packaged_gin_folder().resolve()):
        return {}
    found: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    if text.startswith(_KEPT):
        return {}
    for number, line in enumerate(text.splitlines(), start=1):
        included = re.match(r"^include\s+['\"]([^'\"]+)['\"]", line)
        if included:
            file = _find_gin_file(included.group(1), folders, f"{path}:{number}")
            found |= _left_sides(file, folders)
        left = _LEFT_SIDE.match(line)
        if left:
            found[left[1] + (":" if left[2].startswith(":") else "")] = f"{path}:{number}"
    return found


def _collect_references(macros: set[str], scopes: set[str], values: set[str]) -> None:
    """Adds the macros that the configuration uses, and the scopes and functions that it enters."""
    for reference in gin.config.iterate_references(gin.config._CONFIG):
        if reference.configurable.selector == "gin.macro":
            macros.add("/".join(reference.scopes))
        elif reference.configurable.selector != "gin.constant":
            scopes.update(reference.scopes)
            values.add(reference.configurable.selector.rsplit(".", 1)[-1])


def _check_required() -> None:
    missing = []
    for (scope, selector), parameters in gin.config._CONFIG.items():
        for parameter, value in parameters.items():
            if repr(value) == "%gin.REQUIRED":
                name = scope if selector == "gin.macro" else f"{selector}.{parameter}"
                missing.append(name)
    if missing:
        flags = " ".join(f"{_GIN_FLAG}{name}=..." for name in missing)
        raise UserError(f"no value for {', '.join(missing)}: add {flags}")


def _check_used(
    defined: Mapping[str, str], macros: set[str], scopes: set[str], values: set[str]
) -> None:
    """Refuses what gin would ignore: macros, scopes and values that nothing refers to."""
    for name, where in defined.items():
        *outer, last = name.split("/")
        if not re.search(r"[.:]", last):
            if name not in macros:
                raise UserError(f"{where}: nothing uses {name}{_similar(name, sorted(macros))}")
        elif outer and outer[-1] not in scopes:
            close = _similar(outer[-1], sorted(scopes))
            raise UserError(f"{where}: nothing uses the scope {outer[-1]}{close}")
        else:
            value = re.split(r"[.:]", last)[0] if last.count(".") < 2 else last.split(".")[-2]
            if value in _BY_REFERENCE - values:
                raise UserError(
                    f"{where}: nothing uses {value} in this run; refer to it by @{value}() where "
                    "it belongs, or remove the line"
                )
