"""What networks learn: data sets, losses and metrics, by name or as `package.module:attribute`."""
