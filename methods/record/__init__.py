"""The record of a network: what is written down so that it can be built again."""
