"""The pretraining run: optimiser, schedules, data loading, checkpoints, logs and the loop."""
