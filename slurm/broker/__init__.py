"""Keeps the jobs of a campaign under way: hands them in, follows them, and finds them again after a restart."""
