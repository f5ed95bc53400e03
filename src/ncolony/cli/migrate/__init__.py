"""Files of other supervisors in, files for others out. Nothing is executed, nothing is dropped unsaid."""
