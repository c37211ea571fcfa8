"""The folder of a campaign: the only room that knows its file names; writes are atomic, every file has one writer."""
