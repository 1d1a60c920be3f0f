"""Knowledge written by language models: requests, stores, back-ends, text vectors."""
