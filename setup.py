"""What pyproject.toml cannot say: the bundles lie beside the package, and travel inside of it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["monai_regplugins*"]), "monai_regplugins.bundles"],
    package_dir={"monai_regplugins.bundles": "bundles"},
)
