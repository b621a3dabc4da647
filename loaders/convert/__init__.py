"""Conversion: from sources to betons."""
