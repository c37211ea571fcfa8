"""Before a campaign starts: its file is read and checked, and what it would run, hand in and cost is worked out."""
