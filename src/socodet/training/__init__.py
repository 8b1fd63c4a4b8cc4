"""What pretraining and fine-tuning share: the loop, data loading, devices, checkpoints and logs."""
