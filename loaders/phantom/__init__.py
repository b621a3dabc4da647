"""Phantoms: synthetic radiographs with planted findings and shortcuts."""
