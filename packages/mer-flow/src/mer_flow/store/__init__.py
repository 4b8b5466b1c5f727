"""The HDF5 store of flow maps: its schema, its one writer, its readers."""
