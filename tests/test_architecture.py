"""Dependencies point downward only, never within a row."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vistok"
ROWS = [  # from the top
    {"gpu_check", "launching", "widgets"},
    {"training", "evaluation", "plots", "costs"},
    {"encoded"},
    {"adversary", "codebook", "collapse", "estimate", "objective", "pretrained", "runs", "tables", "tokens"},
    {"tokenizer", "losses", "metrics", "data", "notebooks", "optimization", "plane"},
    {"networks", "quantizers"},
    {"checkpoints", "devices", "inputs", "locks", "processes", "provenance", "weights"},
    {"config"},
    {"files"},
]
LEVEL = {module: level for level, row in enumerate(ROWS) for module in row}


def modules() -> list[tuple[str, Path]]:
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in files]


def imported(path: Path) -> set[str]:
    """Return the parts of vistok that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names |= {node.module} if node.module != "vistok" else {f"vistok.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("vistok.")}


def test_every_module_has_its_row() -> None:
    assert {name for name, _ in modules()} == LEVEL.keys()


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else value.name)
def test_imports_point_downward(name: str, path: Path) -> None:
    for other in imported(path) - {name}:
        assert LEVEL[other] > LEVEL[name], f"{path.name} ({name}) imports {other}"
