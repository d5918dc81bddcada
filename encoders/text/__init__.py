"""Words in a video: subtitles, print on the screen, speech, captions -> lines of text with times."""
