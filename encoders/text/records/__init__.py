"""Records of words and things that other programs found in a film -> lines."""
