"""Keeps the cache of completion intact, which all kernels of a user share on disk: parsed Python modules.

jedi parses a module once, and parso pickles it. Stock, a kernel that is killed meanwhile leaves half a file, which is
then an error in every kernel at every Tab; IPython hides the error and offers nothing. Used by kernels, from
their launcher. Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import uuid
from typing import Any

__all__ = ["install"]


def install(kernel: Any) -> None:
    """Prepare parso when the kernel is first asked to complete: IPython imports it no earlier."""
    complete = kernel.do_complete

    def complete_first(code: str, cursor_pos: int) -> Any:
        kernel.do_complete = complete
        if getattr(kernel.shell.Completer, "use_jedi", False):
            _keep_whole()
        return complete(code, cursor_pos)

    kernel.do_complete = complete_first


def _keep_whole() -> None:
    try:
        cache: Any = importlib.import_module("parso.cache")
    except ImportError:
        return
    names = ("_load_from_file_system", "_save_to_file_system", "_get_hashed_path")
    if not all(hasattr(cache, name) for name in names):
        return  # another version, which may do better
    load, path_of = cache._load_from_file_system, cache._get_hashed_path

    def load_whole(*args: Any, **kwargs: Any) -> Any:
        try:
            return load(*args, **kwargs)
        except Exception:  # noqa: BLE001  # half a pickle can raise anything; the module is parsed again, and stored
            return None

    def save_whole(hashed_grammar: Any, path: Any, item: Any, cache_path: Any = None) -> None:
        target = path_of(hashed_grammar, path, cache_path=cache_path)
        unfinished = f"{target}.{uuid.uuid4().hex}"
        try:
            with open(unfinished, "xb") as stream:  # noqa: PTH123  # with the rights that parso gives it
                pickle.dump(item, stream, pickle.HIGHEST_PROTOCOL)
            os.replace(unfinished, target)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)  # noqa: PTH108
            raise

    cache._load_from_file_system, cache._save_to_file_system = load_whole, save_whole
