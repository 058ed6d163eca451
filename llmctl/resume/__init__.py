"""Ways to go on with a reply, strongest first, and the ladder that tries them in order."""
