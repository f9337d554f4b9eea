"""The rows of the failure catalogue, one file for each part of the system that fails."""
