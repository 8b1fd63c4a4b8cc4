"""What a network knows of annotated objects before it is fine-tuned: accuracies, retrieval, sensitivity to scale."""
