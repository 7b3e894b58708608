"""What a wheel holds, and that it works away from the repository."""

import ast
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("kaft_promot", "tasks", "eval", "gin")
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", *FOLDERS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"  # building writes into the tree
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(source, copy / name)
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [sys.executable, "-m", *command, "--wheel-dir", str(folder), str(copy)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def files_below(folder, pattern):
    """Paths relative to the repository, without those that only exist while tests run."""
    return [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / folder).rglob(pattern))]


@pytest.mark.parametrize("folder, pattern", [("tasks", "*.py"), ("eval", "*.py"), ("gin", "*.gin")])
def test_declarations_install_inside_the_package(names, folder, pattern):
    expected = files_below(folder, pattern)
    assert expected
    assert {f"kaft_promot/{path}" for path in expected} <= names


def test_the_library_its_assets_and_the_type_marker_are_in(names):
    assert set(files_below("kaft_promot", "*.py")) <= names
    assets = [p for p in files_below("kaft_promot/assets", "*") if (ROOT / p).is_file()]
    assert set(assets) <= names
    assert "kaft_promot/py.typed" in names


def test_nothing_else_is_in(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kaft_promot"}


def test_no_folder_hides_gin_config():
    assert not (ROOT / "gin" / "__init__.py").exists()


def test_an_installed_package_finds_its_parts(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import gin, kaft_promot, kaft_promot.tasks, kaft_promot.eval\n"
        "from kaft_promot.gin_config import packaged_gin_folder\n"
        "print(kaft_promot.__file__, kaft_promot.tasks.__file__, kaft_promot.eval.__file__)\n"
        "print(packaged_gin_folder() / 'runs' / 'train.gin')\n"
        "print(gin.configurable.__module__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    *paths, module = ran.stdout.split()
    assert all(pathlib.Path(path).is_relative_to(tmp_path / "site") for path in paths)
    assert pathlib.Path(paths[-1]).is_file()
    assert module == "gin.config"


def test_every_dependency_has_a_lower_bound_and_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    extras = [d for extra in project["optional-dependencies"].values() for d in extra]
    for dependency in [*project["dependencies"], *extras]:
        assert ">=" in dependency, dependency
        line = next(line for line in text.splitlines() if f'"{dependency}"' in line)
        assert "#" in line, f"{dependency}: say what it is for"


def test_dependencies_are_those_that_the_package_imports():
    """Each declared one is imported, and each imported one declared (or part of another)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split("[>=]", dependency)[0].lower() for dependency in project["dependencies"]}
    imported = set()
    for folder in ("kaft_promot", "tasks", "eval"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    imported.add(node.module.split(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"kaft_promot", "tensorflow"}  # seqio's
    named = {"absl": "absl-py", "gin": "gin-config", "orbax": "orbax-checkpoint"}
    assert {named.get(name, name).replace("_", "-").lower() for name in others} == declared


def test_the_entry_point_is_the_command_line(wheel):
    metadata = zipfile.ZipFile(wheel)
    entry = next(name for name in metadata.namelist() if name.endswith("entry_points.txt"))
    assert "kaft-promot = kaft_promot.cli:console" in metadata.read(entry).decode()


def test_the_continuous_integration_script_lints_and_then_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert lines == ["make lint", "make test"]
