from vislib.data.emoji import *  # noqa: F403
from vislib.data.emoji import CATEGORIES, NAMES, training_scenes  # noqa: F401
