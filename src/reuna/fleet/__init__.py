"""A whole small fleet on one machine: its folders and certificates, its processes, a run on it."""
