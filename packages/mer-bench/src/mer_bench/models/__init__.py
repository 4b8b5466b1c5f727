"""One file per network or handcrafted pipeline; each exports `SPECS`."""
