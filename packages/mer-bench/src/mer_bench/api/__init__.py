"""The bench from Python; `import mer_bench` offers its names."""
