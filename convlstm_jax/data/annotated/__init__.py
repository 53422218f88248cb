"""Films with "CVAT for video 1.1" annotations, cut into labelled clips."""
