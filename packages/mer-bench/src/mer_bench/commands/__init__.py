"""The commands of mer-bench, one module each, imported when used."""
