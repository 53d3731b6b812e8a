"""The venues. One folder each; they never import each other."""
