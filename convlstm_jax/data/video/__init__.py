"""Films from video files, pictures and arrays: found, decoded, cut into clips."""
