"""Things in the pictures of a video -> lines: a detector, its weights, and a tracker."""
