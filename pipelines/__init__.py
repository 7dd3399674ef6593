"""What runs: YAML pipelines, and the compositions of stages behind `engine run --stage ...`."""
