"""A MONAI Label app that registers images of the datastore with the bundles of this package.

Only ``app`` and ``tasks`` need MONAI Label; nothing of this package imports them by itself.
"""
