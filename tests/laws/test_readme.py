"""What the READMEs say is so: tables come from the records, examples run, links lead somewhere, nothing is said twice."""

import json
import math
import re
import shlex
from collections import Counter
from pathlib import Path
from statistics import mean
from unittest import mock

import numpy as np
import pytest

from vistok.quantizers import QUANTIZERS
from vistok.runs import EXAMPLE_GENERATOR, EXAMPLE_SEQUENCE, Run
from vistok.system.paths import repository_root
from vistok.tables import core_hours, measured, photograph_points, plan, with_tables
from vistok.tables.__main__ import READMES

TEXTS = {name: (repository_root() / name).read_text(encoding="utf-8") for name in READMES}
EXAMPLES = [
    (name, code) for name, text in TEXTS.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]
RESULTS = " ".join(TEXTS["runs/README.md"].split())
WITH_TABLES = ["README.md", "runs/README.md"]
MOST_BYTES = 13_000  # of the first page


@pytest.fixture(autouse=True)
def committed_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", str(repository_root() / "runs"))


def markdown_cells() -> dict[str, str]:
    """Return the text of each notebook, by its path in the repository."""
    texts = {}
    for notebook in sorted((repository_root() / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        texts[f"notebooks/{notebook.name}"] = "\n\n".join(sources)
    return texts


@pytest.mark.parametrize("name", READMES)
def test_its_tables_are_those_of_the_records(name: str) -> None:
    assert with_tables(TEXTS[name]) == TEXTS[name], "run `make readme`"


@pytest.mark.parametrize("name", WITH_TABLES)
def test_a_table_changes_with_a_record(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path))  # no records at all
    assert with_tables(TEXTS[name]) != TEXTS[name]


@pytest.mark.parametrize(
    ("name", "example"), EXAMPLES, ids=[f"{name}-{len(code)}-characters" for name, code in EXAMPLES]
)
def test_its_examples_run(name: str, example: str, tmp_path: Path) -> None:
    with mock.patch.dict(QUANTIZERS):  # one of them adds a quantizer
        exec(compile(example.replace("runs/my-", f"{tmp_path}/my-"), name, "exec"), {})


def test_its_examples_run_one_after_the_other() -> None:
    """Two that train do not share a run directory."""
    opened = re.findall(r'Run\.open\("(runs/my-[^"]*)"', "".join(code for _, code in EXAMPLES))
    assert len(opened) == len(set(opened)) == 3


def test_the_first_page_is_one() -> None:
    assert len(TEXTS["README.md"].encode()) <= MOST_BYTES


def test_nothing_is_said_twice() -> None:
    """No sentence of some length stands in two places; a command may."""
    said = Counter()
    for text in TEXTS.values():
        prose = re.sub(r"```.*?```|<!-- (\w+) .*?<!-- /\1 -->", "", text, flags=re.DOTALL)
        paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\n|\n- |\n\|", prose))
        said.update(s for paragraph in paragraphs for s in re.split(r"(?<=[.:;]) ", paragraph) if len(s) > 40)
    assert len(said) > 200
    assert [sentence for sentence, times in said.items() if times > 1] == []


def test_what_it_says_of_the_small_vqgan_is_recorded() -> None:
    folder = repository_root() / "runs/vq-laptop-imagenet-sample-s0-e637c27b"
    metrics, config = (json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "config"))
    settings = config["config"]
    assert (
        f"{metrics['psnr']:.1f} dB and uses {metrics['usage']:.1%} of its {settings['codebook_size']:,} codes"
        in RESULTS
    )
    assert f"{settings['steps']:,} steps of {settings['batch_size']} images" in RESULTS
    assert f"from step {settings['adversarial_start']:,} on" in RESULTS
    assert settings["lpips_weight"] == 0 and f"On {metrics['num_images']} photographs" in RESULTS


def test_what_it_says_of_the_records_is_so() -> None:
    for size, dataset in {"at 64x64": "imagenet-sample", "at 32x32": "cifar10-images"}.items():
        said = int(re.search(rf"(\d+) (training runs )?{size}", TEXTS["README.md"])[1])
        records = list((repository_root() / "runs").glob(f"*-laptop-*{dataset}-s*/metrics.json"))
        assert 0 < said <= len(records)  # whoever reads it may have added some
    planned = plan("celeba64", ["vq-d4"], "laptop", [0, 1, 2], dataset="imagenet-sample")
    usage, psnr = (measured(planned, key)["vq-d4"] for key in ("usage_queue", "psnr"))
    seeds = sorted(zip(psnr, usage, strict=True))
    (best, its_usage), (other, most) = seeds[-1], max(seeds, key=lambda seed: seed[1])
    said = f"the one with {most:.0%} reaches {other:.1f} dB, the one with {its_usage:.0%} {best:.1f} dB"
    assert said in RESULTS


def test_a_record_is_found_by_the_name_that_its_configuration_has() -> None:
    records = [file.parent for file in (repository_root() / "runs").glob("*-laptop-*/config.json")]
    assert len(records) > 90
    assert {record.name: Run.open(record).config.run_name for record in records} == {
        record.name: record.name for record in records
    }


def test_what_it_says_of_lfq_and_ibq_is_recorded() -> None:
    rows = ["fsq-888", "lfq-9", "ibq-d16"]
    psnr = measured(plan("quantizers64", rows, "laptop", [0, 1, 2], dataset="imagenet-sample"), "psnr")
    lfq, ibq = (mean(psnr["fsq-888"]) - mean(psnr[row]) for row in rows[1:])
    assert f"{lfq:.1f} dB (LFQ) and {ibq:.1f} dB (IBQ) behind `fsq-888`" in RESULTS


def test_what_it_says_of_the_ceilings_is_recorded() -> None:
    psnr = measured(plan("quantizers64", None, "laptop", [0, 1, 2], dataset="imagenet-sample"), "psnr")
    none, kl = mean(psnr.pop("none")), mean(psnr.pop("kl"))
    best = max(mean(values) for values in psnr.values())
    assert f"they reach {none:.1f} dB and {kl:.1f} dB, the best row with a codebook {best:.1f} dB" in RESULTS


def test_what_it_says_of_the_corrected_recipes_is_recorded() -> None:
    rows = {"taming": 1024, "taming-corrected": 1024, "llamagen": 16384}
    planned = plan("imagenet256", list(rows), "laptop", [0, 1, 2], dataset="imagenet-sample")
    usage, psnr = (measured(planned, metric) for metric in ("usage", "psnr"))
    first, corrected, other = (mean(psnr[row]) for row in rows)
    assert f"`taming-corrected` is {first - corrected:.1f} dB behind `taming`" in RESULTS
    assert f"what the two families differ in, {other - first:.1f} dB" in RESULTS
    long, slow, short = ([round(size * share) for share in usage[row]] for row, size in rows.items())
    assert f"{min(slow)} to {max(slow)} of its 1,024 codes are in use" in RESULTS
    assert f"codes of 256 dimensions {min(long)} to {max(long)} are in use" in RESULTS
    assert f"of eight dimensions and one length {min(short)} to {max(short)}." in RESULTS
    vits = plan("imagenet256", ["vit-small", "vit-base"], "laptop", [0], dataset="imagenet-sample")
    small, base = (round(8192 * usage) for (usage,) in measured(vits, "usage").values())
    its, other = (psnr for (psnr,) in measured(vits, "psnr").values())
    assert f"use {small} and {base} of 8,192 codes: {its:.1f} dB and {other:.1f} dB" in RESULTS


def test_what_it_says_of_beginnings_of_a_sequence_is_recorded() -> None:
    records = [
        repository_root() / EXAMPLE_SEQUENCE / f"metrics-imagenet-sample-test-{2**n}tokens.json" for n in range(7)
    ]
    *first, last = [f"{json.loads(record.read_bytes())['psnr']:.1f}" for record in records]
    assert f"make {', '.join(first)} and {last} dB" in RESULTS


def test_what_it_says_of_sequences_and_of_two_stages_is_recorded() -> None:
    planned = plan("one_dimensional64", None, "laptop", [0, 1, 2], dataset="imagenet-sample")
    every = {key: measured(planned, key) for key in ("psnr", "ssim", "usage", "entropy_bits", "bits_per_pixel")}
    psnr = {row: mean(values) for row, values in every["psnr"].items() if values}
    one, two = every["psnr"]["titok-32"], every["psnr"]["titok-32-stage2"]
    assert len(one) == len(two) == 3 and max(two) < min(one)
    assert f"they are {mean(one) - mean(two):.1f} dB behind" in RESULTS
    rows = ["titok-32", "maskgit-64", "titok-32-stage1", "titok-32-stage2"]
    hours, *stages = (sum(core_hours([run for run in planned if run.row.name == row])) for row in rows)
    assert f"{sum(stages) / hours:.1f} times the training" in RESULTS
    nats = mean(every["entropy_bits"]["maskgit-64"]) * math.log(2)
    first = [run.run_dir / "log.jsonl" for run in planned if run.row.name == "titok-32-stage1"]
    ends = [[json.loads(line)["losses"]["proxy"] for line in log.read_text().splitlines()[-10:]] for log in first]
    learnt = nats - mean(mean(end) for end in ends)
    assert f"Of the {nats:.1f} nats that a code of the grid has, stage 1 has learnt to predict {learnt:.1f}" in RESULTS
    assert f"grid itself, {psnr['maskgit-64']:.1f} dB" in RESULTS
    bits = {row: round(values[0] * 64**2) for row, values in every["bits_per_pixel"].items() if values}
    few, many = bits["titok-32"], bits["ema-d4"]
    assert f"{few} of them are {mean(one):.1f} dB, where `ema-d4` spends {many:,} on {psnr['ema-d4']:.1f} dB" in RESULTS
    assert bits["maskgit-64"] == bits["titok-64"] and f"same {bits['titok-64']} bits" in RESULTS
    grid, sequence = (mean(every["ssim"][row]) for row in ("maskgit-64", "titok-64"))
    assert f"SSIM {grid:.4f} against {sequence:.4f}" in RESULTS
    assert f"{psnr['titok-64']:.1f} dB against {psnr['maskgit-64']:.1f} dB" in RESULTS
    least, middle, most = (psnr[f"titok-{tokens}"] for tokens in (16, 32, 64))
    assert f"16, 32 and 64 of them reach {least:.1f} dB, {middle:.1f} dB and {most:.1f} dB" in RESULTS
    assert f"seeds of 32 alone lie {max(one) - min(one):.1f} dB apart" in RESULTS
    used = [value for row, values in every["usage"].items() if row.startswith("titok") for value in values]
    assert f"All use {min(used):.0%} to {max(used):.0%} of their codes" in RESULTS


def test_what_it_says_of_photographs_is_recorded() -> None:
    rows, codecs = photograph_points("kodak")
    points = rows[Path(EXAMPLE_GENERATOR).name]
    (nominal, kept), (entropy, _), (file, _) = (points[way] for way in ("nominal", "entropy", "file"))
    assert f"save {1 - entropy / nominal:.0%} of the bits" in RESULTS
    assert f"half of them ({1 - file / nominal:.0%})" in RESULTS
    more = {}
    for name, curve in codecs.items():
        bits, quality = zip(*curve, strict=True)
        more[name] = np.interp(math.log(file), np.log(bits), quality) - kept
    assert f"JPEG keeps {more['JPEG']:.1f} dB more and AVIF {more['AVIF']:.1f} dB" in RESULTS


def test_what_it_says_of_training_longer_is_recorded() -> None:
    lengths = [plan("cifar10", None, scale, [0, 1, 2], dataset="cifar10-images") for scale in ("laptop", "laptop-10k")]
    short, long = ({row: mean(of) for row, of in measured(planned, "psnr").items()} for planned in lengths)
    lead, later = (psnr["vq-d4"] - psnr["vq-d64"] for psnr in (short, long))
    gains = [f"{long[row] - short[row]:.1f} dB to `{row}`" for row in ("fsq-888", "vq-d64")]
    assert f"is worth {', '.join(gains)} and about 1 dB to the others" in RESULTS
    assert f"over `vq-d64` shrinks from {lead:.1f} to {later:.1f} dB" in RESULTS
    assert max(short, key=short.get) == "fsq-888"
    assert sorted(long, key=long.get, reverse=True)[:3] == ["ema-d4", "vq-d4", "fsq-888"]
    few, many = (measured(planned, "usage") for planned in lengths)
    used = {row: f"from {mean(few[row]):.0%} to {mean(many[row]):.0%}" for row in ("vq-d64", "ema-d64", "vq-d64-l2")}
    seeds = f"{min(many['vq-d64']):.0%} to {max(many['vq-d64']):.0%}"
    assert f"`vq-d64` {used['vq-d64']} (its seeds from {seeds}), `ema-d64` {used['ema-d64']}" in RESULTS
    assert f"`vq-d64-l2` {used['vq-d64-l2']}" in RESULTS
    gained, left = (psnr["ema-d64"] - psnr["vq-d64"] for psnr in (short, long))
    assert (
        f"the {gained:.1f} dB that the average gains at dimension 64 after 2,500 steps {left:.1f} dB are left"
        in RESULTS
    )


@pytest.mark.parametrize("name", [*READMES, *markdown_cells()])
def test_its_links_lead_somewhere(name: str) -> None:
    """Relative links of READMEs, and of notebooks to READMEs: the file is there, and has the heading."""
    text = TEXTS[name] if name in TEXTS else markdown_cells()[name]
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not re.match(r"https?://", link)]
    assert len(links) > 5 or name not in TEXTS
    for link in links:
        path, _, anchor = link.partition("#")
        file = (repository_root() / name).parent / path if path else repository_root() / name
        assert file.exists(), link
        assert not anchor or file.suffix == ".ipynb" or anchor in anchors(file.read_text(encoding="utf-8")), link


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a Markdown text."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[str]:
    """The papermill commands of READMEs and notebooks, one string each."""
    texts = [*TEXTS.values(), *markdown_cells().values()]
    return [line for text in texts for line in re.findall(r"papermill (notebooks/[^`\n]*)", text)]


def test_papermill_is_told_where_to_write() -> None:
    assert len(commands()) >= 8
    for command in commands():  # in a terminal it refuses to run without; through a pipe it prints the notebook
        _, output, *options = shlex.split(command)
        assert output.endswith(".ipynb"), command
        assert all(option in ("-p", "-y", "-r") for option in options[:1]), command
