"""Looking at a reward before, while and after it is trained on; each tool is a plain function."""
