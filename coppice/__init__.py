"""Coppice: neural networks that grow and prune themselves while they train."""
