"""Sources: folders, tables and public sets, read as lists of labelled files."""
