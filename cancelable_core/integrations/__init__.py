"""The library inside other people's frameworks. Each module brings its own dependency."""
