"""The results as pages: leaderboard, a page per run, sample and subject; they open from the file system."""
