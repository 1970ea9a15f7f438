"""What is seen of a training: its log, trackers, samples."""
