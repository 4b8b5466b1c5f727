"""The commands of mer-flow, one module each, imported when used."""
