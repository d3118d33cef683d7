"""What every part stands on: files and locks, processes and devices, weights and checkpoints, progress and sentences."""
