"""Sources: folders, tables and public sets, as lists of labelled files."""
