"""What the notebooks' cells call, and what runs notebooks: parameters, execution through papermill, cleaning."""

from vistok.notebooks.parameters import check_parameters, config_from

__all__ = ["check_parameters", "config_from"]
