"""The convolutional networks of the studies, trained from the images: a description each, and one builder.

What the studies printed stands in docs/morphology.md. Theirs are the widths, the kernels, the pooling and where dropout
stands; chosen here, because they do not tell: the rate of dropout of the CIFAR-10 network and of model 1 (0.5), and
of model 2 everything but seven convolutions, the first of 8 filters of 10 x 10, and about 3.6 million parameters
(3,649,722 here, 3,649,546 there). In front of each, channels are brought to mean 0 and variance 1; nothing in that
trains, so the numbers of parameters are theirs.
"""

from dataclasses import dataclass, replace
from typing import Literal

import keras

from deepsky.networks.convolutions import hidden_layer, named_maps, require_side, standardised
from deepsky.networks.heads import Answer


@dataclass(frozen=True, kw_only=True)
class StudyCnn:
    """Convolutions with ReLU, some followed by 2 x 2 maxima; flattened maps; dense layers with ReLU.

    Attributes:
        name: of the network.
        filters: of each convolution.
        kernels_px: side of each kernel.
        padding: ``same`` keeps the side of the maps.
        pooled_after: numbers of the convolutions that maxima follow, from 1.
        units: of each dense layer.
        dropout: share of the inputs of each of these layers that are left out in training, or of the outputs of the
            last one, if ``dropout_behind``.
        dropout_behind: where dropout stands.
    """

    name: str
    filters: tuple[int, ...]
    kernels_px: tuple[int, ...]
    padding: Literal["same", "valid"]
    pooled_after: tuple[int, ...]
    units: tuple[int, ...]
    dropout: float = 0.0
    dropout_behind: bool = False

    @property
    def min_size_px(self) -> int:
        """Return the shortest side of which a map is left."""
        side = 1
        for number in range(len(self.filters), 0, -1):
            side = 2 * side if number in self.pooled_after else side
            side += self.kernels_px[number - 1] - 1 if self.padding == "valid" else 0
        return side

    def __call__(self, shape: tuple[int, int, int], answer: Answer) -> keras.Model:
        """Build pixels -> answer.

        Args:
            shape: (height, width, channel) of the pixels.
            answer: what the network ends in.

        Raises:
            ConfigError: the images are too small.
        """
        require_side(self.name, shape, self.min_size_px)
        pixels = keras.Input(shape, name="pixels")
        maps = standardised(pixels)
        for number, (n_filters, kernel_px) in enumerate(zip(self.filters, self.kernels_px, strict=True), start=1):
            convolution = keras.layers.Conv2D(
                n_filters, kernel_px, padding=self.padding, activation="relu", name=f"conv_{number}"
            )
            maps = convolution(maps)
            maps = named_maps(maps) if number == len(self.filters) else maps
            if number in self.pooled_after:
                maps = keras.layers.MaxPooling2D(2, name=f"halve_{number}")(maps)
        hidden = keras.layers.Flatten(name="flat")(maps)
        for number, n_units in enumerate(self.units, start=1):
            if self.dropout and not self.dropout_behind:
                hidden = keras.layers.Dropout(self.dropout, name=f"dropout_{number}")(hidden)
            hidden = hidden_layer(hidden, n_units, number)
        if self.dropout_behind:
            hidden = keras.layers.Dropout(self.dropout, name="dropout")(hidden)
        return keras.Model(pixels, answer(hidden), name=self.name)


REGRESSION_512 = StudyCnn(
    name="regression_512",
    filters=(32, 64, 128, 128),
    kernels_px=(3, 3, 3, 3),
    padding="valid",
    pooled_after=(1, 2, 3, 4),
    units=(512,),
    dropout=0.5,
)
REGRESSION_96_64 = replace(REGRESSION_512, name="regression_96_64", filters=(32, 96, 128, 128), units=(96, 64))
MNIST = StudyCnn(
    name="cnn_mnist", filters=(32, 64), kernels_px=(3, 3), padding="valid", pooled_after=(1, 2), units=(64,)
)
CIFAR10 = StudyCnn(
    name="cnn_cifar10",
    filters=(32, 64, 64),
    kernels_px=(3, 3, 3),
    padding="same",
    pooled_after=(1, 2, 3),
    units=(64,),
    dropout=0.5,
    dropout_behind=True,
)
GALAXY10_1 = replace(CIFAR10, name="galaxy10_model_1")
GALAXY10_2 = StudyCnn(
    name="galaxy10_model_2",
    filters=(8, 8, 16, 16, 32, 32, 32),
    kernels_px=(10, 7, 5, 3, 3, 3, 3),
    padding="valid",
    pooled_after=(1, 2, 5),
    units=(256,),
)
