"""The cluster: sites, submission, broker. Knows nothing of methods or triggers."""
