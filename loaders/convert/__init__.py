"""Conversion: from radiographs to betons."""
