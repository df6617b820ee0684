"""Parses declarations of conda environments into recipes. Nothing here opens a file or contacts a channel."""

from __future__ import annotations

import dataclasses
import platform
import re
import reprlib
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from runtimed.environments.recipes import CondaRecipe
from runtimed.errors import EnvironmentFailed

__all__ = [
    "CondaSettings",
    "current_platform",
    "read_environment_yml",
    "read_notebook",
    "read_pixi_toml",
    "read_pyproject",
    "read_settings",
    "with_channels",
]

_CONDA_FORGE: Final = "conda-forge"
_PUBLIC: Final = "https://conda.anaconda.org"
_ANACONDA: Final = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST: Final = 8
"""Deepest nesting of requirement files."""

ReadFile = Callable[[str], str]
"""Returns the text of another file by its name, relative to the file that names it; raises OSError if it cannot."""


# --- where packages come from -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CondaSettings:
    """A user's settings of channels.

    Attributes:
        channels: Channels of a recipe that names none, preferred one first.
        defaults: Meaning of the channel `defaults`.
        alias: Prefix that makes a URL of a channel's plain name.
    """

    channels: tuple[str, ...] = (_CONDA_FORGE,)
    defaults: tuple[str, ...] = _ANACONDA
    alias: str = _PUBLIC


def read_settings(variable: str | None, condarcs: Sequence[tuple[str, str]] = ()) -> CondaSettings:
    """Read the settings from `RUNTIMED_CONDA_CHANNELS` and conda's own configuration.

    Args:
        variable: Channels, separated by commas; they come before what a .condarc says. None or empty for none.
        condarcs: Path and text of each .condarc, the most important one first. Of each of the keys `channels`,
            `default_channels` and `channel_alias` the first one counts; other keys are conda's business.

    Raises:
        EnvironmentFailed: If a .condarc cannot be read.
    """
    found: dict[str, Any] = {}
    for name, text in condarcs:
        content = _yaml(name, text)
        for key in ("channels", "default_channels"):
            if content.get(key):
                found.setdefault(key, tuple(_texts(name, key, content[key])))
        if isinstance(content.get("channel_alias"), str):
            found.setdefault("channel_alias", content["channel_alias"])
    named = tuple(part.strip() for part in (variable or "").split(",") if part.strip())
    standard = CondaSettings()
    return CondaSettings(
        channels=named or found.get("channels", standard.channels),
        defaults=found.get("default_channels", standard.defaults),
        alias=found.get("channel_alias", standard.alias),
    )


def with_channels(recipe: CondaRecipe, settings: CondaSettings) -> CondaRecipe:
    """Return the recipe with the URLs of its channels, so that its digest names the actual packages.

    A channel that only a single package names (`bioconda::samtools`) comes after the others, as with conda.
    """
    single = [spec.rsplit("::", 1)[0].strip() for spec in recipe.dependencies if "::" in spec]
    urls: list[str] = []
    for channel in [*(recipe.channels or settings.channels), *single]:
        for name in settings.defaults if channel == "defaults" else (channel,):
            if name.startswith("/"):
                urls.append(Path(name).as_uri())
            elif name != "nodefaults":
                is_url = "://" in name
                urls.append(name.rstrip("/") if is_url else f"{settings.alias.rstrip('/')}/{name.strip('/')}")
    return dataclasses.replace(recipe, channels=tuple(dict.fromkeys(urls)))


def current_platform() -> str:
    """Return conda's name for this machine, like `linux-64` or `osx-arm64`."""
    system = {"darwin": "osx", "win32": "win"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    arm = "aarch64" if system == "linux" else "arm64"
    return f"{system}-{ {'x86_64': '64', 'amd64': '64', 'arm64': arm, 'aarch64': arm}.get(machine, machine) }"


# --- notebooks and environment.yml ------------------------------------------------------------------------------------


def read_notebook(metadata: Mapping[str, Any]) -> CondaRecipe | None:
    """Return the recipe at `runt.conda` of a notebook's metadata, None if there is none.

    Args:
        metadata: `{"runt": {"conda": {"dependencies": ["numpy", …], "channels": ["conda-forge", …]}}}`.

    Raises:
        EnvironmentFailed: If it is there and has another shape.
    """
    runt = metadata.get("runt")
    if not isinstance(runt, Mapping) or "conda" not in runt:
        return None
    name, conda = "the notebook's metadata (runt.conda)", runt["conda"]
    unknown = sorted(conda.keys() - {"channels", "dependencies"}) if isinstance(conda, Mapping) else []
    if unknown:
        _refuse(name, f"only `dependencies` and `channels` are understood there, not {_brief(unknown[0])}")
    return _recipe(name, conda, folder=None, read=None)


def read_environment_yml(
    text: str, *, folder: Path, read: ReadFile | None = None, name: str = "environment.yml"
) -> CondaRecipe:
    """Read an environment.yml: `channels`, `dependencies` and the `pip:` section among them.

    Args:
        folder: Where the file is; paths in its pip section are relative to it.
        read: Gives the text of the requirement files that the pip section includes with `-r`.
        name: What to call the file in a sentence.

    Raises:
        EnvironmentFailed: If it is not YAML or not an environment; the sentence says what and where.
    """
    return _recipe(name, _yaml(name, text), folder=folder, read=read)


def _recipe(name: str, content: Any, *, folder: Path | None, read: ReadFile | None) -> CondaRecipe:
    if not isinstance(content, Mapping):
        _refuse(name, "it must be a mapping with `dependencies`")
    dependencies: list[str] = []
    pip: list[str] = []
    listed = content.get("dependencies")
    if not isinstance(listed, list | None):
        _refuse(name, f"`dependencies` must be a list of packages, not {_brief(listed)}")
    for entry in listed or []:
        match entry:
            case str():
                dependencies.append(entry.strip())
            case {"pip": requirements, **more} if not more:
                pip += _texts(name, "pip", requirements)
            case _:
                _refuse(name, f"`dependencies` must be a list of packages, and {_brief(entry)} is none")
    lines = [line for text in pip for line in _requirement_lines(name, text, folder, read, _DEEPEST)]
    return CondaRecipe(
        dependencies=tuple(dependencies),
        channels=tuple(_texts(name, "channels", content.get("channels"))),
        pip=tuple(lines),
        variables=tuple(_variables(name, content, "variables").items()),
    )


def _variables(name: str, content: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return the variables of a table verbatim: `$` has no meaning in them."""
    found: dict[str, str] = {}
    for variable, value in _table(name, content, key).items():
        if not isinstance(value, str | int | float) or not _VARIABLE.fullmatch(str(variable)):
            _refuse(name, f"`{key}` must map names to texts, and {_brief({variable: value})} does not")
        found[str(variable)] = str(value).replace("$", "$$")
    return found


def _requirement_lines(name: str, line: str, folder: Path | None, read: ReadFile | None, depth: int) -> Iterator[str]:
    line = line.split(" #", maxsplit=1)[0].strip()
    option, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("--") else line.partition(" ")
    value = value.strip()
    if not line or line.startswith("#"):
        return
    if option in {"-r", "--requirement"}:
        if read is None or folder is None or not depth:
            _refuse(name, f"it cannot include {value} here; write the requirements themselves")
        try:
            text = read(value)
        except (OSError, ValueError) as exc:
            _refuse(name, f"{value}, which it includes, cannot be read: {exc}")
        beside = str(Path(value).parent)
        for inner in text.splitlines():
            yield from _requirement_lines(value, inner, folder / beside, _beside(read, beside), depth - 1)
    elif option in {"-e", "--editable"}:
        yield f"-e {_absolute(value, folder)}"
    elif option in {"-c", "--constraint", "-f", "--find-links"} and "://" not in value:
        yield f"{option} {_absolute(value, folder)}"
    elif line.startswith(("./", "../")) or line == ".":
        yield _absolute(line, folder)
    else:
        yield line


def _beside(read: ReadFile, folder: str) -> ReadFile:
    return lambda name: read(str(Path(folder) / name))


def _absolute(path: str, folder: Path | None) -> str:
    return path if folder is None or "://" in path else str((folder / path).resolve())


# --- pixi -------------------------------------------------------------------------------------------------------------


def read_pixi_toml(text: str, *, folder: Path, lock: str | None = None, name: str = "pixi.toml") -> CondaRecipe:
    """Read the default environment of a pixi.toml.

    Args:
        folder: Where the file is; paths of pypi-dependencies are relative to it.
        lock: The text of the pixi.lock beside it, if there is one.
        name: What to call the file in a sentence.

    Raises:
        EnvironmentFailed: If it is not TOML, not a workspace for this platform, or asks for what only pixi can do.
    """
    return _pixi(name, _toml(name, text), folder, lock)


def read_pyproject(
    text: str, *, folder: Path, lock: str | None = None, name: str = "pyproject.toml"
) -> CondaRecipe | None:
    """Read the default environment of the `[tool.pixi]` table of a pyproject.toml; None if it has no such table.

    As with pixi, the project's own `dependencies` come from a Python index, and `requires-python` chooses Python.

    Raises:
        EnvironmentFailed: As `read_pixi_toml`.
    """
    content = _toml(name, text)
    pixi = _table(name, content, "tool").get("pixi")
    if pixi is None:
        return None
    if not isinstance(pixi, dict):
        _refuse(name, f"[tool.pixi] must be a table, not {_brief(pixi)}")
    recipe = _pixi(name, pixi, folder, lock)
    project = _table(name, content, "project")
    pip = (*_texts(name, "project.dependencies", project.get("dependencies")), *recipe.pip)
    dependencies = recipe.dependencies
    requires = project.get("requires-python")
    if isinstance(requires, str) and not any(_package(one) == "python" for one in dependencies):
        dependencies = (*dependencies, f"python {requires}".replace(", ", ","))
    return dataclasses.replace(recipe, dependencies=dependencies, pip=pip)


def _pixi(name: str, content: Mapping[str, Any], folder: Path, lock: str | None) -> CondaRecipe:
    workspace = _table(name, content, "workspace") or _table(name, content, "project")
    if not workspace:
        _refuse(name, "it has no [workspace]")
    here = current_platform()
    platforms = _texts(name, "platforms", workspace.get("platforms"))
    if platforms and here not in platforms:
        _refuse(
            name,
            f"it is for {', '.join(platforms)}, and this machine is {here}; add it with "
            f"`pixi workspace platform add {here}`",
        )
    dependencies: dict[str, str] = {}
    pip: dict[str, str] = {}
    parts = _features(name, content)
    # As with pixi, those of a feature are preferred to those of the workspace.
    channels = [
        _channel(name, channel)
        for part in (*reversed(parts), workspace)
        for channel in _list(name, "channels", part.get("channels"))
    ]
    variables: dict[str, str] = {}
    for part in parts:
        _pip_options(name, part, pip, folder)
        # What is said of one platform counts more than what is said of all.
        targets = _table(name, part, "target")
        system = here.partition("-")[0]
        for key in (None, "unix", system, here):
            chosen = part if key is None else _table(name, targets, key)
            activation = _table(name, chosen, "activation")
            if activation.get("scripts"):
                _refuse(
                    name,
                    "its [activation] runs scripts, which only pixi does; set variables in [activation.env] instead, "
                    f'or ask for what pixi has made: env_source="python:{folder}/.pixi/envs/default/bin/python"',
                )
            for variable, value in _variables(name, activation, "env").items():
                # The shell of pixi puts other variables in.
                text = value.replace("$$", "$")
                for root in ("$PIXI_PROJECT_ROOT", "${PIXI_PROJECT_ROOT}"):
                    text = text.replace(root, str(folder).replace("$", "$$"))
                variables[variable] = text
            if _table(name, chosen, "constraints") and lock is None:
                _refuse(name, "it has [constraints], which only pixi can follow; run `pixi lock` and try again")
            for kind in ("build-dependencies", "host-dependencies", "dependencies"):
                for package, spec in _table(name, chosen, kind).items():
                    dependencies[package.lower()] = _match_spec(name, package, spec)
            for package, spec in _table(name, chosen, "pypi-dependencies").items():
                pip[package.lower().replace("_", "-")] = _requirement(name, package, spec, folder)
    return CondaRecipe(
        dependencies=tuple(dependencies.values()),
        channels=tuple(dict.fromkeys(channels)),
        pip=tuple(pip.values()),
        lock=lock,
        variables=tuple(variables.items()),
    )


def _features(name: str, content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the features of the default environment, lowest precedence first."""
    default = _table(name, content, "environments").get("default", [])
    if isinstance(default, list):
        default = {"features": default}
    if not isinstance(default, dict):
        _refuse(name, f"the environment `default` must be a list of features or a table, not {_brief(default)}")
    features = _table(name, content, "feature")
    wanted = _texts(name, "features", default.get("features"))
    unknown = [one for one in wanted if one not in features]
    if unknown:
        _refuse(name, f"its environment `default` names the feature {unknown[0]!r}, which it does not have")
    parts: list[Mapping[str, Any]] = [_table(name, features, one) for one in reversed(wanted)]
    return parts if default.get("no-default-feature") else [*parts, {**content, "channels": None}]


def _channel(name: str, channel: Any) -> str:
    if isinstance(channel, dict):
        channel = channel.get("channel")
    if not isinstance(channel, str):
        _refuse(name, f"a channel must be a name or a URL, not {_brief(channel)}")
    return channel


def _match_spec(name: str, package: str, spec: Any) -> str:
    if isinstance(spec, str):
        return package if spec.strip() in {"", "*"} else f"{package} {spec.strip()}"
    if not isinstance(spec, dict):
        _refuse(name, f"the version of {package} must be a text or a table, not {_brief(spec)}")
    if not spec.keys() <= {
        "version",
        "build",
        "build-number",
        "channel",
        "subdir",
        "md5",
        "sha256",
        "url",
        "file-name",
    }:
        _refuse(name, f"{package} is built from source ({', '.join(spec)}), which only pixi can do")
    # The version is left where it has always been: some of its forms are not understood between brackets.
    brackets = [
        f"{key.replace('-', '_').replace('file_name', 'fn')}={value!r}"
        for key, value in spec.items()
        if key != "version"
    ]
    version = str(spec.get("version", "*")).strip()
    head = package if version in {"", "*"} else f"{package} {version}"
    return f"{head}[{','.join(brackets)}]" if brackets else head


def _requirement(name: str, package: str, spec: Any, folder: Path) -> str:
    if isinstance(spec, str):
        spec = {"version": spec}
    if not isinstance(spec, dict):
        _refuse(name, f"the version of {package} must be a text or a table, not {_brief(spec)}")
    extras = _texts(name, f"the extras of {package}", spec.get("extras"))
    head = package + (f"[{','.join(extras)}]" if extras else "")
    markers = f" ; {spec['env-markers']}" if spec.get("env-markers") else ""
    if "path" in spec:
        path = _absolute(str(spec["path"]), folder)
        tail = f"[{','.join(extras)}]" if extras else ""
        return f"-e {path}{tail}" if spec.get("editable") else f"{head} @ {Path(path).as_uri()}{markers}"
    if "git" in spec:
        at = next((f"@{spec[key]}" for key in ("rev", "tag", "branch") if spec.get(key)), "")
        inside = f"#subdirectory={spec['subdirectory']}" if spec.get("subdirectory") else ""
        return f"{head} @ git+{str(spec['git']).removeprefix('git+')}{at}{inside}{markers}"
    if "url" in spec:
        return f"{head} @ {spec['url']}{markers}"
    version = str(spec.get("version", "*")).strip()
    if version in {"", "*"}:
        return head + markers
    return f"{head}{version if version[0] in '<>=!~' else f'=={version}'}{markers}"


def _pip_options(name: str, part: Mapping[str, Any], pip: dict[str, str], folder: Path) -> None:
    options = _table(name, part, "pypi-options")
    if isinstance(options.get("index-url"), str):
        pip["--index-url"] = f"--index-url {options['index-url']}"
    for url in _texts(name, "extra-index-urls", options.get("extra-index-urls")):
        pip[f"--extra-index-url {url}"] = f"--extra-index-url {url}"
    for link in _list(name, "find-links", options.get("find-links")):
        place = link.get("url") or _absolute(str(link.get("path")), folder) if isinstance(link, dict) else str(link)
        pip[f"--find-links {place}"] = f"--find-links {place}"


# --- shapes -----------------------------------------------------------------------------------------------------------


def _package(spec: str) -> str:
    """Return the package name of a match spec."""
    name = spec.rsplit("::", 1)[-1].strip()
    for position, character in enumerate(name):
        if not (character.isalnum() or character in "-_."):
            return name[:position].lower()
    return name.lower()


def _yaml(name: str, text: str) -> dict[str, Any]:
    try:
        import yaml  # noqa: PLC0415  # comes with the extra `conda`
    except ImportError:
        raise EnvironmentFailed(
            f"Reading {name} needs PyYAML; install it with `pip install 'ipython-runtimed[conda]'`", extra="conda"
        ) from None
    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise EnvironmentFailed(f"{name} is not YAML: {exc.problem}{where}", file=name) from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise EnvironmentFailed(f"{name} is not YAML: {' '.join(str(exc).split())}", file=name) from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        _refuse(name, "it must be a mapping of names to values")
    return content


def _toml(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise EnvironmentFailed(f"{name} is not TOML: {exc}", file=name) from exc


def _table(name: str, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(name, f"`{key}` must be a table, not {_brief(value)}")
    return value


def _list(name: str, key: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(name, f"`{key}` must be a list, not {_brief(value)}")
    return value


def _texts(name: str, key: str, value: Any) -> list[str]:
    values = _list(name, key, value)
    wrong = [one for one in values if not isinstance(one, str) or not one.strip()]
    if wrong:
        _refuse(name, f"`{key}` must be a list of texts, and {_brief(wrong[0])} is none")
    return [one.strip() for one in values]


def _brief(value: Any) -> str:
    """Return a short form of a value for a sentence. A few lines of YAML can expand beyond any memory."""
    shown = reprlib.Repr()
    shown.maxlevel, shown.maxlist, shown.maxdict, shown.maxstring, shown.maxother = 2, 4, 4, 80, 80
    return shown.repr(value)


def _refuse(name: str, why: str) -> NoReturn:
    raise EnvironmentFailed(f"{name} cannot be followed: {why}", file=name)
