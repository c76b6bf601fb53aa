"""Training on the stock Trainer's public hooks."""

from unlora.training.arguments import training_arguments as training_arguments
from unlora.training.supervised import FineTuneTrainer as FineTuneTrainer
from unlora.training.trainer import UnlearnTrainer as UnlearnTrainer
