"""What the server of `tests.fresh` imports before it forks."""

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

__all__ = ["AutoModelForSequenceClassification", "AutoTokenizer", "BertForSequenceClassification"]

torch.set_num_threads(1)
