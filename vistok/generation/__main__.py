"""Train a generator from the command line; `python -m vistok.generation --help` says how."""

import argparse
from collections.abc import Sequence

from vistok.generator_config import GeneratorConfig
from vistok.system.interrupts import run_command
from vistok.training.command import add_arguments, read_settings, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a generator from the command line; returns 130 where the training was stopped before its end, and saved."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.generation",
        description="Train a generator on tokens that `python -m vistok.tokens` wrote. Run the same command again to go on "
        "where it was stopped. On several GPUs: accelerate launch --multi_gpu -m vistok.generation ...",
    )
    parser.add_argument("--config", metavar="FILE", help="a configuration as JSON, or the config.json of a run")
    parser.add_argument("--tokens", metavar="DIR", help="folder of the tokens")
    parser.add_argument(
        "--tokenizer",
        metavar="TOKENIZER",
        help="theirs, which the run then keeps: a run, an official checkpoint's name, ...",
    )
    parser.add_argument("--by-class", action="store_true", help="learn each class by itself")
    add_arguments(parser, "GeneratorConfig")
    given = parser.parse_args(arguments)
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.generation.trainer import GeneratorTrainer

    return train(parser.prog, given, lambda: _configuration(given), GeneratorTrainer)


def _configuration(given: argparse.Namespace) -> GeneratorConfig:
    """Return the configuration that the arguments say; ValueError, TypeError or OSError where they say none."""
    named = {"tokens": given.tokens, "tokenizer": given.tokenizer, "by_class": given.by_class or None}
    named = {name: value for name, value in named.items() if value is not None}
    parameters = GeneratorConfig.as_given(dict(given.parameter))
    for name in parameters.keys() & named.keys():
        raise ValueError(f"{name} is given twice, with -p and as an argument of its own: give it once.")
    settings = {} if given.config is None else read_settings(given.config)
    if not {"tokens"} & (settings.keys() | named.keys() | parameters.keys()):
        raise ValueError(
            "tokens is not given: a generator is trained on a folder that `python -m vistok.tokens` wrote."
        )
    return GeneratorConfig.from_dict(settings | named | parameters)


if __name__ == "__main__":
    run_command(main)
