"""What a set says held against what is true, a module a kind of annotation; `pipelines.evaluating` puts it together.

Each kind knows the truth and gives, for what one row of the table says, its numbers (`measure`) and which things of the
truth it has right (`judge`).
"""
