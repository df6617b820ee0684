"""The environment that a notebook or a script declares itself: in metadata, or in a script block (PEP 723)."""

from __future__ import annotations

import json

from runtimed.environments.checks import check_requirements, check_specifier, check_table, parse_toml
from runtimed.environments.conda_files import read_notebook
from runtimed.environments.decision import Decision
from runtimed.environments.facts import Facts
from runtimed.environments.recipes import UvRecipe
from runtimed.environments.script_block import SCRIPT, flaw_in, script_blocks
from runtimed.errors import EnvironmentFailed

__all__ = ["from_metadata", "from_script"]


def from_metadata(facts: Facts) -> Decision | None:
    """Return the environment that a notebook's metadata declare, None if they declare none.

    Raises:
        EnvironmentFailed: If they cannot be understood.
    """
    if facts.metadata is None:
        return None
    try:
        metadata = json.loads(facts.metadata)
    except (ValueError, RecursionError) as exc:
        raise EnvironmentFailed(f"The metadata value 'notebook_metadata' is no JSON: {exc}") from exc
    metadata = check_table(metadata, "notebook_metadata")
    runt = check_table(metadata.get("runt", {}), "notebook_metadata: runt")
    where = "notebook_metadata: runt.uv"
    uv = check_table(runt.get("uv", {}), where)
    unknown = sorted(uv.keys() - {"dependencies", "requires-python"})
    if unknown:
        raise EnvironmentFailed(
            f"notebook_metadata: runt.uv has {', '.join(map(repr, unknown))}, and only dependencies and "
            "requires-python are understood there; a script block (PEP 723) with a table [tool.uv] can say more"
        )
    if uv.get("dependencies") or uv.get("requires-python"):
        return Decision(
            source="uv:inline",
            reason="the notebook's metadata name dependencies for uv",
            recipe=UvRecipe(
                dependencies=check_requirements(uv.get("dependencies", []), f"{where}.dependencies"),
                requires_python=check_specifier(
                    uv.get("requires-python"), "notebook_metadata: runt.uv.requires-python"
                ),
                python=facts.base,
            ),
        )
    conda = read_notebook(metadata)
    if conda is not None and (conda.dependencies or conda.pip):
        return Decision(
            source="conda:inline", reason="the notebook's metadata name dependencies for conda", recipe=conda
        )
    if "deno" in runt:
        return Decision(source="deno", reason="the notebook's metadata have settings for Deno")
    spec = metadata.get("kernelspec")
    if isinstance(spec, dict) and (spec.get("name") == "deno" or str(spec.get("language")).lower() == "typescript"):
        return Decision(source="deno", reason=f"the notebook's kernelspec is {spec.get('name')!r}")
    return None


def from_script(facts: Facts) -> Decision | None:
    """Return the environment in the first script block of the code cells, None if there is none.

    Raises:
        EnvironmentFailed: If it cannot be understood.

    Source: PEP 723.
    """
    found = ""
    others = False
    named = "The script block"
    for source in facts.sources:
        if SCRIPT not in source:
            continue
        blocks = [content for name, content in script_blocks(source) if name == "script"]
        if found:
            others = others or any(block != found for block in blocks)
            continue
        flaw = flaw_in(source)
        if flaw is not None:
            raise EnvironmentFailed(f"{named} cannot be read: {flaw} (PEP 723)")
        if len(blocks) > 1:
            raise EnvironmentFailed(f"{named} is not the only one in its cell; PEP 723 allows one")
        found = blocks[0] if blocks else ""
    if not found:
        return None
    content = "".join(f"{line[2:] if line.startswith('# ') else line[1:]}\n" for line in found.split("\n")[:-1])
    table = parse_toml(content, named)
    tool = check_table(table.get("tool", {}), f"{named}: tool")
    has_settings = bool(check_table(tool.get("uv", {}), f"{named}: tool.uv"))
    unknown = sorted(table.keys() - {"dependencies", "requires-python", "tool"})
    notes = [f"{named} has the keys {', '.join(unknown)}, which mean nothing"] if unknown else []
    if others:
        notes.append("of several code cells with a script block the first one counts")
    return Decision(
        source="uv:pep723",
        reason="the notebook or the file has a script block (PEP 723)",
        recipe=UvRecipe(
            dependencies=check_requirements(table.get("dependencies", []), f"{named}: dependencies"),
            requires_python=check_specifier(table.get("requires-python"), f"{named}: requires-python"),
            python=facts.base,
            script=content if has_settings else None,
            folder=facts.folder if has_settings else "",
        ),
        notes=tuple(notes),
    )
