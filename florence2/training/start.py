def start_from_scratch(model, seed):
    pass
