"""Networks: the CNN, its fused blocks, and those of torchvision."""
