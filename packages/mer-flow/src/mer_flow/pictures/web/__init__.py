"""Pages that open from the file system: one look, one script, thumbnails, and the page of a store."""
