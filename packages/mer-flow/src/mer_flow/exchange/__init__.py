"""Import and export of other people's layouts: STSTNet's PNG folders, `.npz`, Parquet metadata."""
