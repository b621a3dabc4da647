"""Models: devices, training steps, training, metrics, checkpoints and evaluation."""
