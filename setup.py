"""Which folder installs where; everything else about the package is in pyproject.toml.

`tasks/`, `eval/` and `gin/` are declarations that live beside the library in the repository and
inside it when installed: `kaft_promot.tasks`, `kaft_promot.eval`, and `kaft_promot/gin/*.gin`.
`gin/` has no `__init__.py`, so that `import gin` finds gin-config also from the repository's root.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
# installed name -> folder in the repository
DECLARATIONS = {"kaft_promot.tasks": "tasks", "kaft_promot.eval": "eval"}


def gin_folders() -> dict[str, str]:
    """Every folder below gin/ as the package-data folder that it becomes."""
    folders = [ROOT / "gin", *sorted(p for p in (ROOT / "gin").rglob("*") if p.is_dir())]
    names = [folder.relative_to(ROOT).as_posix() for folder in folders]
    return {"kaft_promot." + name.replace("/", "."): name for name in names}


setup(
    packages=[
        *find_packages(include=["kaft_promot", "kaft_promot.*"]),
        *DECLARATIONS,
        *gin_folders(),
    ],
    package_dir={**DECLARATIONS, **gin_folders()},
    package_data={
        "kaft_promot": ["py.typed", "assets/**/*"],
        **{name: ["*.gin"] for name in gin_folders()},
    },
)
