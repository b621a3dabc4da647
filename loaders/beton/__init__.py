"""Betons: the file format, its reader and its writer."""
