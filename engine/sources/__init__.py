"""Image sets in the formats that people share them in: a module for each, which makes entries of them."""
