"""Training: tasks, the trainer, metrics, checkpoints and the folder that a run leaves behind."""
