"""A trained model with all it needs to be used: channels, units, scalers, chunks, checkpoints."""

from flare_geo.nn.surrogate.channels import Field
from flare_geo.nn.surrogate.run import Stream
from flare_geo.nn.surrogate.scaler import Scaler
from flare_geo.nn.surrogate.surrogate import Surrogate

__all__ = ["Field", "Scaler", "Stream", "Surrogate"]
