"""What README.md says is so: its tables come from the records, its examples run, its links lead somewhere."""

import json
import re
import shlex
from pathlib import Path
from statistics import mean

import pytest

from vistok.system.paths import repository_root
from vistok.tables import measured, plan, with_tables

README = repository_root() / "README.md"
TEXT = README.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def committed_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", str(repository_root() / "runs"))


def test_its_tables_are_those_of_the_records() -> None:
    assert with_tables(TEXT) == TEXT, "run `make readme`"


def test_a_table_changes_with_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path))  # no records at all
    assert with_tables(TEXT) != TEXT


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: f"{len(text)}-characters")
def test_its_examples_run(example: str, tmp_path: Path) -> None:
    exec(compile(example.replace("runs/my-", f"{tmp_path}/my-"), str(README), "exec"), {})


def test_its_examples_run_one_after_the_other() -> None:
    """Two that train do not share a run directory."""
    opened = re.findall(r'Run\.open\("(runs/my-[^"]*)"', TEXT)
    assert len(opened) == len(set(opened)) == 2


def test_what_it_says_of_the_small_vqgan_is_recorded() -> None:
    folder = repository_root() / "runs/vq-laptop-imagenet-sample-s0-e637c27b"
    metrics, config = (json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "config"))
    settings = config["config"]
    assert (
        f"{metrics['psnr']:.1f} dB and uses {metrics['usage']:.1%} of its {settings['codebook_size']:,} codes" in TEXT
    )
    assert f"{settings['steps']:,} steps of {settings['batch_size']} images" in TEXT
    assert f"from step {settings['adversarial_start']:,} on" in TEXT
    assert settings["lpips_weight"] == 0 and f"On {metrics['num_images']} photographs" in TEXT


def test_what_it_says_of_the_records_is_so() -> None:
    records = list((repository_root() / "runs").glob("*-laptop-*/metrics.json"))
    assert int(re.search(r"(\d+) training runs at 64x64", TEXT)[1]) <= len(
        records
    )  # whoever reads it may have added some
    planned = plan("celeba64", ["vq-d4"], "laptop", [0, 1, 2], dataset="imagenet-sample")
    usage, psnr = (measured(planned, key)["vq-d4"] for key in ("usage_queue", "psnr"))
    seeds = sorted(zip(psnr, usage, strict=True))
    (best, its_usage), (other, most) = seeds[-1], max(seeds, key=lambda seed: seed[1])
    said = f"the one with {most:.0%} reaches {other:.1f} dB, the one with {its_usage:.0%} {best:.1f} dB"
    assert said in " ".join(TEXT.split())


def test_what_it_says_of_lfq_and_ibq_is_recorded() -> None:
    rows = ["fsq-888", "lfq-9", "ibq-d16"]
    psnr = measured(plan("quantizers64", rows, "laptop", [0, 1, 2], dataset="imagenet-sample"), "psnr")
    lfq, ibq = (mean(psnr["fsq-888"]) - mean(psnr[row]) for row in rows[1:])
    assert f"{lfq:.1f} dB (LFQ) and {ibq:.1f} dB (IBQ) behind `fsq-888`" in " ".join(TEXT.split())


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not re.match(r"https?://", link)]
    assert len(links) > 5
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for link in links:
        assert link in anchors if link[0] == "#" else (repository_root() / link).exists(), link


def commands() -> list[str]:
    """The papermill commands of README and notebooks, one string each."""
    texts = [TEXT]
    for notebook in sorted((repository_root() / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return [line for text in texts for line in re.findall(r"papermill (notebooks/[^`\n]*)", text)]


def test_papermill_is_told_where_to_write() -> None:
    assert len(commands()) >= 8
    for command in commands():  # in a terminal it refuses to run without; through a pipe it prints the notebook
        _, output, *options = shlex.split(command)
        assert output.endswith(".ipynb"), command
        assert all(option in ("-p", "-y", "-r") for option in options[:1]), command
