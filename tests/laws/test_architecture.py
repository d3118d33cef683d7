"""Dependencies point downward only, never within a row; a test lies where what it tests lies."""

import ast
import graphlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vistok.system.paths import PACKAGE

ROWS = [  # from the top: a file or a folder imports what stands below it, and nothing beside it
    {"tables", "widgets"},
    {"compress", "notebooks", "plots"},
    {"generation", "gpu_check", "lessons"},
    {"evaluation", "tokens", "training"},
    {"estimate", "pretrained", "runs"},
    {"data", "losses", "tokenizer"},
    {"config", "generator_config", "metrics", "tiling"},
    {"networks", "quantizers", "recipes"},
    {"images", "system"},
]
TESTS = PACKAGE.parent / "tests"
ACROSS = {"laws", "browser", "benchmarks", "helpers"}  # folders of tests that are of no one module
MODES = {f"{how}{plus}{kind}" for how in "rwax" for plus in ("", "+") for kind in ("", "b", "t")}  # of opening a file
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


def test_the_map_in_the_readme_has_these_rows() -> None:
    drawn = re.search(r"```\n(widgets/ .*?)```", (PACKAGE / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    named = [set(re.findall(r"\b([a-z_]+)(?:/|\.py)(?=\s|$)", line)) for line in drawn.splitlines()]
    assert [row for row in named if row] == ROWS


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else value.name)
def test_imports_point_downward(name: str, path: Path) -> None:
    for other in imported(path) - {name}:
        assert LEVEL[other] > LEVEL[name], f"{path.name} ({name}) imports {other}"


def test_files_of_a_folder_import_each_other_in_one_direction() -> None:
    for folder in (path for path in PACKAGE.iterdir() if path.is_dir()):
        graph = {path.stem: imported_beside(path) for path in folder.glob("*.py")}
        tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the files


def imported_beside(path: Path) -> set[str]:
    """Return the files of its own folder that a file imports before any of its functions is called."""
    package, names = f"vistok.{path.parent.name}", set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module == package:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith(f"{package}."):
            names.add(node.module.removeprefix(f"{package}."))
    return {name if path.with_name(f"{name}.py").is_file() else "__init__" for name in names}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_a_test_lies_where_its_module_lies(path: Path) -> None:
    """`tests/tokens/test_store.py` tests `vistok/tokens/store.py`, or names what it imports of `vistok/tokens/`."""
    *folder, name = path.relative_to(TESTS).parts
    if folder and folder[0] in ACROSS:
        return
    module = name.removeprefix("test_").removesuffix(".py")
    tested = PACKAGE.joinpath(*folder, module)
    assert (
        tested.with_suffix(".py").is_file()
        or (not folder and tested.is_dir())
        or (folder and (PACKAGE / folder[0]).is_dir() and folder[0] in imported(path))
    ), f"there is no {tested}.py, and nothing of its folder is tested here"


def test_text_files_are_utf8_whatever_the_locale_says() -> None:
    for _, path in modules():
        for call in (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            mode = next((a.value for a in call.args if isinstance(a, ast.Constant) and a.value in MODES), None)
            opened = name == "open" and (isinstance(call.func, ast.Name) or mode is not None)
            of_text = name in ("read_text", "write_text") or (opened and "b" not in (mode or "r"))
            keywords = {keyword.arg for keyword in call.keywords}
            assert not of_text or "encoding" in keywords, f"{path.name}:{call.lineno} has no encoding"
            assert not keywords & {"text", "universal_newlines"} or "encoding" in keywords, f"{path.name}:{call.lineno}"


def test_only_say_writes_to_standard_output() -> None:
    for _, path in modules():
        if path.name == "files.py":
            continue
        for call in (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            to_output = getattr(call.func, "id", "") == "print" and "file" not in {k.arg for k in call.keywords}
            around_bars = isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "tqdm.write"
            assert not to_output and not around_bars, f"{path.name}:{call.lineno}: use vistok.system.files.say"


def test_every_command_that_is_named_is_there() -> None:
    texts = [path for kind in ("py", "js", "md") for path in PACKAGE.rglob(f"*.{kind}")]
    texts += [PACKAGE.parent / "README.md", *PACKAGE.parent.glob("*/README.md")]
    for path in texts:
        for name in re.findall(r"python -m (vistok\.[\w.]*\w)", path.read_text(encoding="utf-8")):
            assert importlib.util.find_spec(name), f"{path} names {name}"


def commands() -> list[str]:
    """Return what of the package is run by `python -m`."""
    files = [path for _, path in modules() if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in files]
    return sorted(name.removesuffix(".__main__") for name in names)


@pytest.mark.parametrize("command", sorted(set(commands()) - {"gpu_check"}))  # which is over in a minute
def test_ctrl_c_of_a_command_is_no_traceback(command: str) -> None:
    file = importlib.util.find_spec(
        f"vistok.{command}.__main__" if (PACKAGE / command).is_dir() else f"vistok.{command}"
    )
    assert Path(file.origin).read_text(encoding="utf-8").endswith("    run_command(main)\n")


@pytest.mark.parametrize("command", commands())
def test_help_answers_before_pytorch_is_loaded(command: str) -> None:
    program = (
        f"import runpy, sys; sys.argv = ['it', '--help']\n"
        f"try: runpy.run_module('vistok.{command}', run_name='__main__')\n"
        "except SystemExit as end: sys.exit(end.code or int('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: python -m vistok.{command} ")
