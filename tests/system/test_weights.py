"""Weights files: found, downloaded whole or not at all, and told apart by their tensors."""

import io
import urllib.error
from pathlib import Path

import pytest
import torch

from vistok.system.weights import (
    Unavailable,
    download_file,
    file_sha256,
    find_weights,
    first_line,
    load_state,
    state_sha256,
)

URL = "https://example.org/models/net-01234567.pth"


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where PyTorch's download folder would hold the file; there is no network."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tmp_path / "torch" / "hub" / "checkpoints" / "net-01234567.pth"


def find(given: Path | None = None, download: bool = False) -> Path:
    return find_weights(given, URL, "Net (1 MB)", download, options="weights=FILE")


def test_weights_are_found_where_they_are_given_or_were_downloaded(cached: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.pth").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / cached.name).touch()
    assert find(tmp_path / "mine.pth") == tmp_path / "mine.pth"
    assert find(tmp_path / "folder") == tmp_path / "folder" / cached.name
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find() == find(download=True) == cached


def test_where_there_are_none_the_sentence_says_what_helps_and_names_no_home(cached: Path, tmp_path: Path) -> None:
    way_out = f"put {URL} at ~/torch/hub/checkpoints/net-01234567.pth, or use weights=FILE."
    with pytest.raises(Unavailable) as asked_not:
        find()
    assert str(asked_not.value) == (
        f"The weights of Net (1 MB) are not here, and their download was not asked for: {way_out}"
    )
    with pytest.raises(Unavailable) as failed:
        find(download=True)
    assert str(failed.value) == (
        f"The weights of Net (1 MB) could not be downloaded (no network in this test): {way_out}"
    )
    with pytest.raises(Unavailable, match="are not in the given folder: put https"):
        find(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no weights file .*nothing\.pth; it should be a copy of"):
        find(tmp_path / "nothing.pth")
    assert not cached.parent.exists()


def test_a_download_is_whole_and_checked_or_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source.pth"
    source.write_bytes(b"weights")
    digest = file_sha256(source)
    good, bad = tmp_path / "cache" / f"weights-{digest}.pth", tmp_path / "cache" / "weights-00000000.pth"
    download_file(source.as_uri(), good)
    assert good.read_bytes() == b"weights"
    with pytest.raises(ValueError, match=f"what came has SHA-256 {digest}"):
        download_file(source.as_uri(), bad)
    assert list(good.parent.iterdir()) == [good]


def test_a_state_is_read_back(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "state.pth")
    state = load_state(tmp_path / "state.pth")
    assert list(state) == ["weight"] and torch.equal(state["weight"], torch.arange(3.0))
    (tmp_path / "state.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="is not a PyTorch weights file"):
        load_state(tmp_path / "state.pth")


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(4, 3, 2, 2, generator=generator),
        "bias": torch.randn(4, generator=generator),
        "half": torch.randn(4, generator=generator).bfloat16(),
        "steps": torch.tensor(3),
    }


def test_the_sha256_of_a_state_is_that_of_its_values() -> None:
    expected = state_sha256(state())
    assert len(expected) == 64
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    buffer.seek(0)
    assert state_sha256(torch.load(buffer)) == expected
    assert state_sha256(dict(reversed(state().items()))) == expected
    channels_last = state()["weight"].contiguous(memory_format=torch.channels_last)
    assert not channels_last.is_contiguous()
    assert state_sha256(state() | {"weight": channels_last}) == expected
    assert state_sha256(state() | {"bias": torch.nn.Parameter(state()["bias"])}) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": torch.tensor(4)},
        {"steps": torch.tensor([3])},
        {"steps": torch.tensor(3, dtype=torch.int32)},
        {"weight": state()["weight"].reshape(3, 4, 2, 2)},
        {"bias": state()["bias"].flip(0)},
        {"half": state()["half"].view(torch.int16)},
        {"another": torch.zeros(0)},
    ],
)
def test_the_sha256_of_another_state_is_another(changed: dict[str, torch.Tensor]) -> None:
    assert state_sha256(state() | changed) != state_sha256(state())


def test_first_line_is_fit_for_a_sentence() -> None:
    assert first_line(RuntimeError("Error(s) in loading:\n\tMissing key")) == "Error(s) in loading"
    assert first_line(EOFError()) == "EOFError"
