"""Why the network says so: attention, integrated gradients, occlusion; of a sample, or averaged per class."""
