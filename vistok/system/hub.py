"""The Hugging Face Hub: its mixin for a class that saves itself into a directory, and the weights files of other projects."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import HfApi, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError

from vistok.system.devices import floating_dtype, usable_device
from vistok.system.paths import resolve_path
from vistok.system.weights import first_line
from vistok.system.words import nearest

SECONDS_TO_ANSWER = 10.0  # of the Hub, asked what a model has
OWN_FILES = ("config.json", "model.safetensors")  # of a model that a mixin has pushed


class OnTheHub(ModelHubMixin):
    """`push_to_hub`, `save_pretrained` and `from_pretrained` for a class with `save(path)` and `load(path, device, dtype)`."""

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory.absolute())

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | torch.device | None = None,
        device_map: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **unknown: Any,
    ) -> Self:
        """Load a model of the Hugging Face Hub, or of a directory, in eval mode.

        Args:
            pretrained_model_name_or_path: "owner/name" on the Hub, or a directory.
            device, dtype: as of `load`; `device_map` and `torch_dtype` are other libraries' names of them.
            revision, cache_dir, force_download, local_files_only, token: as of huggingface_hub.snapshot_download.

        Raises:
            ValueError: there is no such option, which the sentence names with the nearest; or as of `load`.
            FileNotFoundError: there is no such model.
        """
        parameters = inspect.signature(cls.from_pretrained).parameters.values()
        options = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        for name in unknown:
            raise ValueError(f"from_pretrained has no option {name!r}; {nearest(name, options)}")
        device_map = usable_device() if device_map == "auto" else device_map
        device = _one_of({"device": device, "device_map": device_map}, default="cpu")
        dtype = _one_of({"dtype": floating_dtype(dtype), "torch_dtype": floating_dtype(torch_dtype)}, default=None)
        # A relative folder is the caller's, as everywhere on the Hub, or else the repository's, as everywhere here.
        places = (Path(pretrained_model_name_or_path).absolute(), resolve_path(pretrained_model_name_or_path))
        path = next((place for place in places if place.is_dir()), None)
        if path is None:
            usable_device(device)  # before anything is downloaded
            try:
                path = snapshot_download(
                    str(pretrained_model_name_or_path),
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=list(OWN_FILES),
                )
            except HFValidationError as error:
                raise FileNotFoundError(
                    f"There is no directory {pretrained_model_name_or_path}, and on the Hub a name is 'owner/name'."
                ) from error
        return cls.load(path, device, dtype)


def download_weights(name: str, endings: tuple[str, ...]) -> Path:
    """Return the weights file of a model on the Hub, in the Hub's cache; downloads it, and config.json beside it, if need be.

    Without a network a model that is in the cache is taken from there.

    Args:
        name: "owner/name", or "owner/name/file".
        endings: what the names of weights files end in.

    Raises:
        FileNotFoundError: there is no such model, or it cannot be downloaded; the sentence says why.
        ValueError: it has several weights files, or none; the sentence lists them.
    """
    owner, model, *rest = name.split("/")
    repository, file = f"{owner}/{model}", "/".join(rest)
    try:
        listed = [file] if file else _files_of(repository)
    except Exception as error:  # whatever the library beneath raises, which depends on its version
        raise _not_had(name, repository, error) from error
    file = file or _only_weights(listed, repository, endings)
    try:
        folder = snapshot_download(repository, allow_patterns=["config.json", file])
    except Exception as error:
        raise _not_had(name, repository, error) from error
    path = Path(folder) / file
    if not path.is_file():
        raise FileNotFoundError(f"The Hugging Face Hub has no {file} in {repository}.")
    return path


def _files_of(repository: str) -> list[str]:
    """Return the names of a model's files: on the Hub, or where that cannot be asked, in its cache; raises what it raised."""
    try:
        # Not list_repo_files, which tries for half a minute where there is no network.
        return [entry.rfilename for entry in HfApi().model_info(repository, timeout=SECONDS_TO_ANSWER).siblings]
    except Exception as error:
        try:
            folder = Path(snapshot_download(repository, local_files_only=True))
        except Exception:
            raise error from None
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _not_had(name: str, repository: str, error: Exception) -> FileNotFoundError:
    return FileNotFoundError(
        f"There is no run, tokenizer or checkpoint {name} here, and none of that name could be downloaded from the Hugging "
        f"Face Hub ({first_line(error)}). Get it from https://huggingface.co/{repository} and give the file; or correct the "
        "path, if it is one."
    )


def _only_weights(files: Iterable[str], repository: str, endings: tuple[str, ...]) -> str:
    """Return the one weights file of a repository, or that of a mixin's; ValueError where it is not plain which."""
    weights = sorted(file for file in files if file.endswith(endings))
    if OWN_FILES[1] in weights:
        return OWN_FILES[1]
    if len(weights) != 1:
        listed = ", ".join(weights[:8]) + (", ..." if len(weights) > 8 else "")
        which = f"several: {listed}. Give one, as '{repository}/{weights[0]}'" if weights else "none"
        raise ValueError(f"Of weights files {repository} has {which}.")
    return weights[0]


def _one_of(given: dict[str, Any], default: Any) -> Any:
    """Return what was given under one of two names; ValueError where both say something else."""
    values = {name: value for name, value in given.items() if value is not None}
    if len(set(map(str, values.values()))) > 1:
        raise ValueError(" and ".join(f"{name} is {str(value)!r}" for name, value in values.items()) + ": give one.")
    return next(iter(values.values()), default)
