"""What a training step of a configuration needs, computed without running it: `step.py`; the command: `__main__.py`."""
