"""The rules of the house that no linter knows: what an import loads, a module exports and a file may name."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "casemate"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "migrations" not in path.parts)  # alembic writes those
HEAVY = {"torch", "pandas", "sklearn", "sqlalchemy", "skops", "pyarrow"}

# Modules longer than 400 lines, each with the reason why it is one piece.
LONG_MODULES = {"core/stats.py": "one import for every number that a gate is decided by"}

named = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())


def run(*code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a fresh process, outside coverage, so that only Casemate's own imports are seen."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, timeout=60, check=False, env=clean)


def imported_by(code: str) -> set[str]:
    """The top-level names in `sys.modules` after `code`, which may exit."""
    report = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(list(sys.modules)), file=sys.stderr))"
    done = run("-c", f"{report}\n{code}")
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def exported(tree: ast.Module) -> list[str] | None:
    """The literal value of `__all__`, or None where there is none."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node, ast.Assign | ast.AnnAssign):
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def defined(tree: ast.Module) -> set[str]:
    """The public functions and classes that a module defines."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def bound(tree: ast.Module) -> set[str]:
    """Every name that a module binds at its top level, those under `if TYPE_CHECKING:` included."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names | {node.name for node in tree.body if hasattr(node, "name")}


def isort_style(name: str) -> tuple[int, list[tuple[int, int | str]]]:
    """The order of ruff's RUF022: constants, then classes, then the rest; numbers inside a name count as numbers."""
    rank = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return rank, [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def children(package: Path) -> set[str]:
    """The names of the modules and packages directly inside a package."""
    return {path.stem if path.is_file() else path.name for path in package.iterdir()} - {"__init__", "__pycache__"}


def repository_files() -> list[Path]:
    """Every file that is, or is about to be, committed."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


# ------------------------------------------------------------------------------------------------------------- imports


def test_importing_casemate_loads_no_heavy_framework() -> None:
    assert imported_by("import casemate") & HEAVY == set()
    # The target is 0.3 s. A busy machine must not turn the suite red, so the time is shown (-rP) and judged nowhere.
    code = "import time; start = time.perf_counter(); import casemate; print(time.perf_counter() - start)"
    sys.stdout.write(f"import casemate: {min(float(run('-c', code).stdout) for _ in range(3)):.3f} s\n")


def test_the_help_loads_no_heavy_framework() -> None:
    code = "import sys; sys.argv = ['casemate', '--help']; from casemate.cli import main; main()"
    assert imported_by(code) & HEAVY == set()


# ------------------------------------------------------------------------------------------------------------- modules


@named
def test_every_module_says_what_it_exports(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = exported(tree)
    assert names is not None, "expected __all__, got none"
    assert names == sorted(names, key=isort_style)
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert defined(tree) - set(names) == (defined(tree) & {"main"} if path.stem == "__main__" else set())
    missing = set(names) - bound(tree)
    assert not missing or "__getattr__" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_public_surface_is_small_and_real() -> None:
    import casemate

    assert 0 < len(casemate.__all__) <= 25
    assert [name for name in casemate.__all__ if not hasattr(casemate, name)] == []


@pytest.mark.parametrize(
    "package",
    # In `cli` each file is named after its command on purpose, and nobody imports from there.
    [path.parent for path in MODULES if path.name == "__init__.py" and path.parent.name != "cli"],
    ids=lambda path: path.relative_to(SOURCE.parent).as_posix(),
)
def test_no_public_name_hides_a_module_beside_it(package: Path) -> None:
    # `from casemate.evasion import apgd` must not depend on what was imported before.
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in package.glob("*.py")}
    names = set().union(*(defined(tree) for tree in trees.values()), exported(trees[package / "__init__.py"]) or [])
    assert names & children(package) == set()


@named
def test_a_module_of_more_than_400_lines_has_a_reason(path: Path) -> None:
    name = path.relative_to(SOURCE).as_posix()
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert (length > 400) == (name in LONG_MODULES), f"{length} lines: split it, or mend LONG_MODULES"


@named
def test_a_room_or_package_explains_itself(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


# ---------------------------------------------------------------------------------------------------------- repository


def test_the_readme_shows_the_real_help() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- help:start -->\s*```\w*\n(.*?)\n```\s*<!-- help:end -->", readme, re.DOTALL)
    assert block, "expected a fenced block between <!-- help:start --> and <!-- help:end --> in README.md"
    shown = run("-c", "import sys; sys.argv = ['casemate', '--help']; from casemate.cli import main; main()").stdout
    assert tidy(block[1]) == tidy(shown), "run: COLUMNS=100 NO_COLOR=1 .venv/bin/casemate --help"


def tidy(text: str) -> list[str]:
    """Lines without trailing blanks, and without empty lines at either end."""
    return [line.rstrip() for line in text.strip("\n").splitlines() if line.strip()]


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", changelog, re.MULTILINE)


def test_no_file_names_a_machine_or_a_registry() -> None:
    # Put together from pieces, so that this file does not name them either.
    hosts = ["py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js.org", "deb.deb" + "ian.org"]
    paths = r"(?<![\w.:/@-])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "home", "Users"]) + r")/\w"
    forbidden = re.compile("|".join([*map(re.escape, hosts), paths]))
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in forbidden.finditer(text)]
    assert found == []


def test_each_decision_has_a_number_of_its_own() -> None:
    pages = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [name for name in pages if not re.fullmatch(r"\d{3}-[a-z0-9-]+\.md", name)] == []
    assert [number for number, count in Counter(name[:3] for name in pages).items() if count > 1] == []


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.!]+", line)] == []
    names = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in wanted}
    assert names - {line.partition("==")[0] for line in pins} == set()
