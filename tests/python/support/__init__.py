"""What tests import: filesystems, processes, the library's calls in one shape, descriptions of trees."""
