"""Networks that build in no time, saved as stage train saves them."""

import functools
import tempfile
from pathlib import Path

import keras

from deepsky.networks.heads import join, softmax_answer, tree_answer
from deepsky.networks.inputs import ImageSpec
from deepsky.networks.registry_for_tests import cnn_small
from deepsky.training.saved import ModelCard, save_network
