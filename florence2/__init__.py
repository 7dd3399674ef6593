"""Florence-2, the model that learns from the dataset and annotates again. It stands alone: it imports no engine."""
