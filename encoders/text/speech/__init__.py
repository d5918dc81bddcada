"""Speech in a video -> lines: the sound, stretches of it, and recognizers."""
