"""Write the reference pages of the site: the API from ``__all__``, the options from the bundles' configurations."""

from __future__ import annotations

import inspect
import json
import pkgutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import TYPE_CHECKING, Any

import monai_regplugins

if TYPE_CHECKING:  # the tests read this file without Sphinx
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

DOCS = Path(__file__).parent
BUNDLES = DOCS.parent / "bundles"
PACKAGE = monai_regplugins.__name__
FIRST = ("", "fields", "networks", "losses", "metrics", "inferers", "transforms", "io", "result", "registration")
LEFT_OUT = ("apps", "__main__")  # they need an environment of their own; they are command lines
NOT_OPTIONS = ("imports", "bundle_root", "network", "pairs", "data_source", "handlers", "initialize", "run", "rank")


def parts() -> Iterator[ModuleType]:
    """Yield the modules that make the public interface: the packages and the modules at the top."""
    yield monai_regplugins
    for found in pkgutil.walk_packages(monai_regplugins.__path__, f"{PACKAGE}."):
        words = found.name.split(".")[1:]
        if not set(words) & set(LEFT_OUT) and (found.ispkg or len(words) == 1):
            yield import_module(found.name)


def modules_of(part: ModuleType) -> Iterator[ModuleType]:
    """Yield the modules of a package, without those of the packages in it."""
    for found in pkgutil.iter_modules(getattr(part, "__path__", [])):
        if part is not monai_regplugins and not found.ispkg and found.name not in LEFT_OUT:
            yield import_module(f"{part.__name__}.{found.name}")


def entries(module: ModuleType) -> dict[str, str]:
    """Return the directive that documents each name in the ``__all__`` of a module."""
    return {name: directive(getattr(module, name)) for name in getattr(module, "__all__", []) if name[:2] != "__"}


def directive(value: Any) -> str:
    """Return the directive that documents a value."""
    if inspect.isclass(value) and not isinstance(value, GenericAlias):
        return "autoexception" if issubclass(value, Exception) else "autoclass"
    return "autofunction" if inspect.isroutine(value) else "py:data"


def place_of(module: ModuleType, name: str) -> str:
    """Return the module in which a name of a module is written, and the name."""
    value = getattr(module, name)
    if directive(value) == "py:data":  # does not know its module
        homes = [home for home in modules_of(module) if name in getattr(home, "__all__", [])]
        return f"{(homes or [module])[0].__name__}.{name}"
    return f"{value.__module__}.{value.__qualname__}"


@cache
def public_names() -> dict[str, str]:
    """Map the place where each public name is written to the place where a reader finds it documented."""
    names: dict[str, str] = {}
    for part in parts():
        for module in (part, *modules_of(part)):
            for name in entries(module):
                names.setdefault(place_of(module, name), f"{module.__name__}.{name}")
    return names


def title(text: str, line: str) -> list[str]:
    """Return the lines of a heading."""
    return [text, line * len(text), ""]


def introduced(module: ModuleType) -> list[str]:
    """Return the lines that introduce a module: its docstring, and the target of references to it."""
    index = ["   :no-index:"] if module.__name__ in public_names().values() else []  # a function of the same name
    lines = [f".. py:module:: {module.__name__}", *index, ".. py:currentmodule:: None", ""]
    return [*lines, inspect.getdoc(module) or "", ""]


def documented(module: ModuleType, names: Iterable[str]) -> list[str]:
    """Return the lines that summarize and document names of a module."""
    full = {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    with_docstring = [name for name, value in full.items() if directive(value) != "py:data"]
    lines = [".. autosummary::", "   :nosignatures:", "", *(f"   ~{name}" for name in with_docstring), ""]
    for name, value in full.items():
        options = {"autofunction": [], "py:data": [f"   :value: {textwrap.shorten(repr(value), 100)}"]}
        lines += [f".. {directive(value)}:: {name}"]
        lines += [*options.get(directive(value), ["   :members:", "   :show-inheritance:"]), ""]
    return lines


def api_page(part: ModuleType) -> str:
    """Return the page of one part: its public names, then those that only its modules export."""
    lines = [*title(part.__name__, "="), *introduced(part)]
    lines += documented(part, entries(part)) if entries(part) else []
    for module in modules_of(part):
        places = {name: public_names()[place_of(module, name)] for name in entries(module)}
        further = [name for name, place in places.items() if place == f"{module.__name__}.{name}"]
        lines += [*title(module.__name__, "-"), *introduced(module)]
        lines += documented(module, further) if further else []
    return "\n".join(lines)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, child: Any) -> Any:
    """Lead a reference to the place where something is written to the place where it is documented.

    A name that exists but is not public, such as a type in a signature, stays text; Sphinx warns of any other.
    """
    target, names = str(node.get("reftarget")), public_names()
    for place in (target, target.rpartition(".")[0]):
        if place in names:
            documented_as = names[place] + target.removeprefix(place)
            python = env.get_domain("py")
            return python.resolve_xref(env, node["refdoc"], app.builder, "obj", documented_as, node, child)
    return child if target.startswith(f"{PACKAGE}.") and exists(target) else None


def exists(name: str) -> bool:
    """Return whether a dotted name can be imported."""
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def is_field(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which the docstring of the class describes."""
    return True if type(value).__name__ == "_tuplegetter" else None


def rank(part: ModuleType) -> tuple[int, str]:
    """Order the parts for readers: what registration is made of first, the rest by name."""
    word = f"{part.__name__}.".split(".")[1]
    return (FIRST.index(word) if word in FIRST else len(FIRST), part.__name__)


def write_api(folder: Path) -> None:
    """Write a page for each part of the package, and the list of these pages."""
    found = [part for part in sorted(parts(), key=rank) if entries(part) or list(modules_of(part))]
    lines = [*title("API reference", "="), "The public classes and functions, from their docstrings.", ""]
    for part in found:
        (folder / f"{part.__name__}.rst").write_text(api_page(part), encoding="utf-8")
        lines += [f":doc:`{part.__name__}`", f"   {(inspect.getdoc(part) or '').splitlines()[0]}", ""]
    lines += [".. toctree::", "   :hidden:", "", *(f"   {part.__name__}" for part in found), ""]
    (folder / "api.rst").write_text("\n".join(lines), encoding="utf-8")


def options_of(kind: str) -> dict[str, dict[str, Any]]:
    """Return the options of a configuration, such as ``inference``, with the value in each bundle that has them."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(BUNDLES.glob(f"*/configs/{kind}.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        program = {*NOT_OPTIONS, content["run"].removeprefix("%")}
        for key, value in content.items():
            if not isinstance(value, dict) and key not in program:
                options.setdefault(key, {})[path.parts[-3]] = value
    return options


def descriptions() -> dict[str, dict[str, str]]:
    """Return the described options, by the heading they stand under."""
    described: dict[str, dict[str, str]] = json.loads((DOCS / "reference" / "options.json").read_text(encoding="utf-8"))
    return described


def default_text(values: Mapping[str, Any]) -> str:
    """Return the default of an option: one value, or those of the bundles where they differ."""
    texts = {bundle: json.dumps(value) for bundle, value in values.items()}
    if len(set(texts.values())) == 1 and len(texts) == len(list(BUNDLES.iterdir())):
        return f"``{next(iter(texts.values()))}``"
    return ", ".join(f"{bundle}: ``{text}``" for bundle, text in texts.items())


def options_table(described: Mapping[str, str], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of options with their defaults."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 50 28", ""]
    rows = [("option", "meaning", "default")]
    rows += [(f"``--{key}``", described[key], default_text(options[key])) for key in described if key in options]
    for row in rows:
        lines += [f"   {'*' if cell is row[0] else ' '} - {cell}" for cell in row]
    return [*lines, ""] if len(rows) > 1 else []


def write_options(folder: Path) -> None:
    """Write the page of the options of each configuration that is run."""
    lines = [*title("Options of the command line", "=")]
    lines += ["Each option is a top-level key of the configuration; the defaults are read from the bundles.", ""]
    lines += ["A default that begins with ``@`` or ``$`` follows from other options.", ""]
    for kind, command in {"inference": "inference", "evaluate": "evaluating", "train": "training"}.items():
        options = options_of(kind)
        call = f"python -m monai.bundle run {command} --config_file bundles/ran/configs/{kind}.json --option value"
        lines += [*title(kind.capitalize(), "-"), "::", "", f"   {call}", ""]
        for heading, described in descriptions().items():
            table = options_table(described, options)
            lines += [f"**{heading}**", "", *table] if table else []
    (folder / "options.rst").write_text("\n".join(lines), encoding="utf-8")


def write_pages(app: Sphinx) -> None:
    """Write all generated pages anew."""
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.rst"):
        path.unlink()
    write_api(folder)
    write_options(folder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the pages, and what autodoc and the references need to know of the package."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-skip-member", is_field)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
