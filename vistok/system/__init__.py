"""The ground of every part: files and locks, processes and devices, weights and checkpoints, progress and sentences."""
