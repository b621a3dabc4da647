"""Rivals of plainfilm, each as its users write it."""
