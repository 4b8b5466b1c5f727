"""From a clip on disk to flow, strain, regions and landmarks, and a whole database into a store."""
