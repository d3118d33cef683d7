"""Lessons of the notebooks: the plane, a collapse as it happens, what quantizers cost, pictures of the rows."""
