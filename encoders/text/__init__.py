"""Words in a video: subtitles, text on the screen, speech, captions -> lines with times."""
