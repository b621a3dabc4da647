"""Hurdles: networks of each collection, tested at home and on every other collection."""
