r"""Release bundles, and install released ones.

    python -m monai_regplugins.release check bundles/ran bundles/r2n2
    python -m monai_regplugins.release build --bundles bundles/ran bundles/r2n2 --output_dir dist \
        --repo owner/name --tag 0.1.0
    python -m monai_regplugins.release verify dist/ran_v0.1.0.zip --sums dist/SHA256SUMS
    python -m monai_regplugins.release install https://host/ran_v0.1.0.zip --sums SHA256SUMS --bundle_dir bundles

build writes an archive of each bundle, SHA256SUMS, and model_info.json, which belongs into models/ of the tagged
commit; nothing when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from monai_regplugins.bundle import start
from monai_regplugins.checks import InputError, check_file
from monai_regplugins.environment import installed_version
from monai_regplugins.files.atomic import write_file
from monai_regplugins.release.archive import build_zip, check_zip
from monai_regplugins.release.checks import PACKAGE, check_bundles
from monai_regplugins.release.download import install_bundle
from monai_regplugins.release.layout import read_metadata
from monai_regplugins.release.sums import (
    check_sum,
    listed_sum,
    model_info,
    sums_text,
)

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m monai_regplugins.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="report everything that keeps bundles from being released")
    check.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of a bundle")
    check.set_defaults(command=check_command)

    build = commands.add_parser("build", help="check bundles and write what a release consists of")
    build.add_argument("--bundles", nargs="+", type=Path, required=True, help="folders of the bundles")
    build.add_argument("--output_dir", type=Path, required=True, help="folder of the archives; it is made")
    build.add_argument("--repo", required=True, help="owner/name of the repository on GitHub")
    build.add_argument("--tag", required=True, help="tag of the release, the version")
    build.set_defaults(command=build_command)
    for command in (check, build):
        command.add_argument("--changelog", type=Path, help="changelog of the package, which has to have the version")

    verify = commands.add_parser("verify", help="compare archives with their published sums, and look into them")
    verify.add_argument("archives", nargs="+", type=Path, metavar="ZIP", help="archive of a bundle")
    verify.add_argument("--sums", type=Path, required=True, help="SHA256SUMS of the release")
    verify.set_defaults(command=verify_command)

    install = commands.add_parser("install", help="unpack an archive safely; nothing in it is executed")
    install.add_argument("source", metavar="ZIP_OR_URL", help="archive: path, or http, https or file address")
    install.add_argument("--bundle_dir", type=Path, required=True, help="folder of the bundles; it is made")
    published = install.add_mutually_exclusive_group()
    published.add_argument("--sums", metavar="FILE_OR_URL", help="SHA256SUMS of the release")
    published.add_argument("--sha256", metavar="HEX", help="the archive's SHA-256, from a trusted place")
    install.set_defaults(command=install_command)
    return parser.parse_args(argv)


def check_command(args: argparse.Namespace) -> None:
    """Check bundles.

    Raises:
        InputError: When one is not fit for release; the message lists everything wrong.
    """
    check_bundles(args.bundles, changelog=args.changelog)
    print(f"fit for release: {', '.join(bundle.resolve().name for bundle in args.bundles)}")


def build_command(args: argparse.Namespace) -> None:
    """Check all bundles, then write their archives, the list that MONAI reads, and last the sums.

    Raises:
        InputError: When anything is wrong with any bundle; then nothing is written.
    """
    if not REPOSITORY.fullmatch(args.repo):
        raise InputError(f"repo is '{args.repo}', expected owner/name as on GitHub.")
    check_bundles(args.bundles, args.tag, args.changelog)
    archives = [build_zip(bundle, args.output_dir) for bundle in args.bundles]
    info = json.dumps(model_info(archives, args.repo, args.tag), indent=4) + "\n"
    write_file(args.output_dir / "model_info.json", info.encode())
    write_file(args.output_dir / "SHA256SUMS", sums_text(archives).encode())
    print((args.output_dir / "SHA256SUMS").read_text(encoding="utf-8"), end="")


def verify_command(args: argparse.Namespace) -> None:
    """Compare archives with the published sums and check what they hold.

    Raises:
        InputError: When one is not the published archive, or would not be unpacked.
    """
    text = check_file(args.sums, "sums").read_text(encoding="utf-8", errors="replace")
    for archive in args.archives:
        check_sum(check_file(archive, "archive"), listed_sum(text, archive.name, str(args.sums)))
        print(f"{archive}: bundle {check_zip(archive)}, as published")


def install_command(args: argparse.Namespace) -> None:
    """Install an archive and report what could not be verified.

    Raises:
        InputError: When it is refused; then nothing is there that was not there before.
    """
    folder = install_bundle(args.source, args.bundle_dir, args.sums, args.sha256)
    metadata = read_metadata(folder)
    print(f"installed {folder.name} {metadata['version']} as {folder}")
    if args.sums is None and args.sha256 is None:
        print("note: neither --sums nor --sha256 was given, so it is not verified that this is the published archive")
    required = metadata.get("required_packages_version", {}).get(PACKAGE)
    if required not in (None, installed_version(PACKAGE)):
        print(f"note: it was made for {PACKAGE} {required}: pip install {PACKAGE}=={required}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    args = parse_arguments(argv)
    args.command(args)


if __name__ == "__main__":
    start()  # input errors in one line
    main()
